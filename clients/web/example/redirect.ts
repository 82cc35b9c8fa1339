/** The page that Entra ID sends the sign-in's answer to; it hands it over to the page that asked. */
import { broadcastResponseToMainFrame } from "@azure/msal-browser/redirect-bridge";

await broadcastResponseToMainFrame();
