/** What the example page imports: the client and MSAL in one file, since browsers don't resolve package names. */
export { PublicClientApplication } from "@azure/msal-browser";
export { AcsAuthError, AcsTokens } from "../src/acs-tokens.js";
