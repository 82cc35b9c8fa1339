/** What the tests' page offers to the tests, as properties of `window`. */
export { AzureCommunicationTokenCredential } from "@azure/communication-common";
export { PublicClientApplication } from "@azure/msal-browser";
export { AcsAuthError, AcsTokens } from "../src/acs-tokens.js";
