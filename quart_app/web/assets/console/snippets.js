/** Each call as code in three languages, to copy. */

export const OPERATIONS = [
  { name: "Get", method: "GET", path: "/api/user", ts: "user" },
  { name: "Create", method: "POST", path: "/api/user", ts: "user" },
  { name: "Token", method: "GET", path: "/api/token", ts: "token" },
  { name: "Teams token", method: "GET", path: "/api/token/teams", teams: true, ts: "token" },
  { name: "Sign out", method: "DELETE", path: "/api/token", ts: "none" },
  { name: "Delete", method: "DELETE", path: "/api/user", ts: "none", asks: "Delete your ACS identity, its chats and its tokens?" },
];

const TYPESCRIPT_ENDS = {
  user: "const { acsUserIdentity } = await answer.json();",
  token: "const { token, expiresOn } = await answer.json();",
  none: "// 204: done",
};
const PYTHON_ENDS = {
  user: 'acs_user_id = answer.json()["acsUserIdentity"]',
  token: 'token = answer.json()["token"]',
  none: "# 204: done",
};

export const LANGUAGES = { curl, TypeScript: typescript, Python: python };

function curl({ method, path, teams }, origin) {
  return [
    `curl -i -X ${method} ${origin}${path} \\`,
    `  -H "Authorization: Bearer $TOKEN"${teams ? " \\" : ""}`,
    ...(teams ? ['  -H "teams-user-aad-token: $TEAMS_TOKEN"'] : []),
  ].join("\n");
}

function typescript({ method, path, teams, ts, name }, origin, scope) {
  if (name === "Token" || name === "Teams token") {
    return [
      `const tokens = new AcsTokens({ service: "${origin}", msal, scope: "${scope}"${teams ? ", teams: true" : ""} });`,
      "const { token } = await tokens.get();",
      "const credential = tokens.credential(); // for CallClient and ChatClient; it renews itself",
    ].join("\n");
  }
  if (name === "Sign out") {
    return "await tokens.signOutEverywhere(); // an AcsTokens of clients/web";
  }
  return [
    `const { accessToken } = await msal.acquireTokenSilent({ scopes: ["${scope}"] });`,
    `const answer = await fetch("${origin}${path}", {`,
    `  method: "${method}",`,
    "  headers: { Authorization: `Bearer ${accessToken}` },",
    "});",
    TYPESCRIPT_ENDS[ts],
  ].join("\n");
}

function python({ method, path, teams, ts }, origin, scope) {
  return [
    `access_token = app.acquire_token_interactive(["${scope}"])["access_token"]  # app: msal.PublicClientApplication`,
    `headers = {"Authorization": f"Bearer {access_token}"}`,
    ...(teams ? ['headers["teams-user-aad-token"] = teams_token'] : []),
    `answer = requests.${method.toLowerCase()}("${origin}${path}", headers=headers, timeout=30)`,
    PYTHON_ENDS[ts],
  ].join("\n");
}
