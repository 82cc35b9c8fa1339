/** Signs a user in by authorization code with PKCE (RFC 7636): leaves for the issuer's page, and comes back to this one. */

const KEPT = "acs-auth-console-sign-in";
const TEAMS_SCOPES = [
  "https://auth.msft.communication.azure.com/Teams.ManageCalls",
  "https://auth.msft.communication.azure.com/Teams.ManageChats",
];

/** Leave for the issuer's sign-in page. */
export async function signIn({ authorization, clientId, scopes }) {
  const verifier = randomText();
  const state = randomText();
  sessionStorage.setItem(KEPT, JSON.stringify({ verifier, state }));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  const asked = new URL(authorization);
  const parameters = {
    client_id: clientId,
    response_type: "code",
    redirect_uri: redirectUri(),
    scope: [...scopes, "openid", "profile", "offline_access"].join(" "),
    state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: "S256",
    prompt: "select_account",
  };
  for (const [name, value] of Object.entries(parameters)) {
    asked.searchParams.set(name, value);
  }
  location.assign(asked);
}

/** The session of a user who comes back from the sign-in; `undefined` when nobody does. Throws what went wrong. */
export async function returnedFromSignIn(where) {
  const answer = new URLSearchParams(location.search);
  if (!answer.has("state")) {
    return undefined;
  }
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  sessionStorage.removeItem(KEPT);
  history.replaceState(null, "", "/"); // the code is good once, and belongs in no history
  if (answer.get("state") !== kept.state) {
    throw new Error("This answer belongs to another sign-in. Sign in again.");
  }
  if (answer.has("error")) {
    throw new Error(answer.get("error_description") ?? answer.get("error"));
  }
  const redeemed = { grant_type: "authorization_code", code: answer.get("code"), code_verifier: kept.verifier };
  const { tokens, asked } = await tokensFor(where, { ...redeemed, redirect_uri: redirectUri() });
  return {
    accessToken: tokens.access_token,
    asked,
    async teamsToken() {
      const renewed = { grant_type: "refresh_token", refresh_token: tokens.refresh_token, scope: TEAMS_SCOPES.join(" ") };
      return (await tokensFor(where, renewed)).tokens.access_token;
    },
  };
}

async function tokensFor({ token, clientId }, parameters) {
  const started = performance.now();
  const response = await fetch(token, { method: "POST", body: new URLSearchParams({ client_id: clientId, ...parameters }) });
  const tokens = await response.json();
  if (!response.ok) {
    throw new Error(tokens.error_description ?? tokens.error ?? `The sign-in answered ${response.status}.`);
  }
  return { tokens, asked: { status: response.status, milliseconds: performance.now() - started } };
}

const redirectUri = () => `${location.origin}/`;
const randomText = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
