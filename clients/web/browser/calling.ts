/** `page.ts` and the calling SDK, which is large. */
export { CallClient } from "@azure/communication-calling";
export * from "./page.js";
