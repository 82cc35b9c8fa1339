/** `npm run example [PORT]`: bundle the example and serve it. */
import { bundle } from "./bundle.js";
import { serve } from "./serve.js";

const port = Number(process.argv[2] ?? 3000);
const directory = new URL("pages/", import.meta.url).pathname;
await bundle(directory);
await serve(directory, port);
console.log(`http://localhost:${port} (its service needs CORS_ALLOWED_ORIGINS=http://localhost:${port})`);
