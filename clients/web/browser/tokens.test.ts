/** The client in a real Chromium, with the real MSAL and the real credential, against the real service. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import type { Page, Route } from "playwright-core";
import { control, eventually, type Service } from "./local-azure.js";
import { MINUTE, pick, SECOND, settled, World, type Visit } from "./world.js";

const HOUR = 60 * MINUTE;

let world: World;
before(async () => {
  world = await World.open();
});
afterEach(async () => {
  await control(world.azure.acs, "DELETE", "/local/faults");
  await control(world.azure.entra, "DELETE", "/local/faults");
  await control(world.azure.entra, "DELETE", "/local/conditions");
});
after(() => world.close());

async function entraCalls(): Promise<{ token: number }> {
  return (await control(world.azure.entra, "GET", "/local/calls")) as { token: number };
}

/** Whether this version of the service can sign out everywhere, by its own description. */
async function offersSignOut(service: Service): Promise<boolean> {
  const document = (await (await fetch(`${service.url}/openapi.json`)).json()) as {
    paths: Record<string, Record<string, unknown>>;
  };
  return document.paths["/api/token"]?.["delete"] !== undefined;
}

interface Outcome {
  readonly token?: string;
  readonly left?: number;
  readonly error?: string;
  readonly message?: string;
}

/** Begin to ask for a token; the outcome, once there is one. */
function asking(page: Page): Promise<Outcome> {
  return page.evaluate(() =>
    window.tokens.get().then(
      ({ token, expiresOnTimestamp }) => ({ token, left: expiresOnTimestamp - Date.now() }),
      ({ error, message }) => ({ error, message }),
    ),
  );
}

/** Let the held token end without a renewal, as when the computer sleeps: dates move on, timers don't. */
async function sleepThroughTheEnd({ context }: Visit): Promise<void> {
  await world.time.leap(context, 1.5 * HOUR);
}

/** Ask for a token; once the first answer is there, let time pass second by second until there is an outcome. */
async function answeredInTime({ page, service }: Visit): Promise<Outcome> {
  let over = false;
  const first = page.waitForEvent("requestfinished", (request) => request.url().startsWith(`${service.url}/api/token`));
  const outcome = asking(page).finally(() => {
    over = true;
  });
  await first;
  for (let turn = 0; turn < 10; turn += 1) {
    await page.evaluate(() => undefined); // the page takes its turn to read the answer
  }
  await eventually(async () => {
    await world.time.advance(SECOND);
    return over;
  });
  return outcome;
}

/** Answer requests for a token in place of the service, in the service's own form; when it was done. */
async function answerInstead(
  visit: Visit,
  status: number,
  body: Record<string, unknown>,
  headers: Record<string, string> = {},
): Promise<readonly number[]> {
  const answered: number[] = [];
  await visit.context.route(`${visit.service.url}/api/token`, (route: Route) => {
    if (route.request().method() === "OPTIONS") {
      return route.continue();
    }
    answered.push(world.time.now);
    return route.fulfill({
      status,
      json: { code: status, message: "…", requestId: "1", ...body },
      headers: {
        "Access-Control-Allow-Origin": world.origin,
        "Access-Control-Expose-Headers": "WWW-Authenticate, Retry-After",
        ...headers,
      },
    });
  });
  return answered;
}

test("the example page signs the user in, shows the ACS id, and signs out", async () => {
  const [service, context] = [await world.service(), await world.context()];
  await world.publish("example.html", "index.html", {
    "http://localhost:5000": service.url,
    "localhost:5001": new URL(world.azure.entra).host,
  });
  const page = await context.newPage();
  await page.goto(`${world.origin}/example.html`);
  await Promise.all([pick(page, "alex"), page.getByRole("button", { name: "Sign in" }).click()]);
  await page.getByText(/^8:acs:\S+ has a token until /).waitFor();
  assert.deepEqual((await service.served()).slice(-1), ["GET /api/token 201"]);
  await page.getByRole("button", { name: "Sign out everywhere" }).click();
  await page.getByText((await offersSignOut(service)) ? "Signed out everywhere." : /can't sign out everywhere yet/).waitFor();
  await context.close();
});

test("a user without an ACS identity gets one with the first token", async () => {
  const visit = await world.visit({ user: "zoe" });
  assert.deepEqual(await visit.served(), ["GET /api/token 404", "POST /api/user 201", "GET /api/token 201"]);
  assert.match((await visit.page.evaluate(() => window.tokens.userId)) ?? "", /^8:acs:/);
  await visit.context.close();
});

test("a user who cancels the sign-in gets no token and is told so", async () => {
  const visit = await world.visit();
  await visit.page.reload();
  const told = visit.page.evaluate(async (entra) => {
    const { AcsTokens, PublicClientApplication } = window.offered;
    const auth = { clientId: "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e02", authority: `${entra}/organizations` };
    const bridge = { knownAuthorities: [new URL(entra).host], redirectUri: `${location.origin}/redirect.html` };
    const msal = new PublicClientApplication({ auth: { ...auth, ...bridge } });
    await msal.initialize();
    await msal.clearCache();
    const scope = "api://5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01/access_as_user";
    const tokens = new AcsTokens({ service: "http://localhost:1", msal, scope });
    return tokens.get().catch(({ error }: { error: string }) => error);
  }, world.azure.entra);
  await Promise.all([pick(visit.page, ""), told]);
  assert.equal(await told, "sign_in_failed");
  await visit.context.close();
});

test("twenty callers and three credentials at once cause one request", async () => {
  const visit = await world.visit();
  await sleepThroughTheEnd(visit);
  const from = (await visit.served()).length;
  const tokens = await visit.page.evaluate(async () => {
    const callers = Array.from({ length: 20 }, () => window.tokens.get());
    const given = await Promise.all([...callers, ...window.credentials.map((credential) => credential.getToken())]);
    return new Set(given.map(({ token }) => token)).size;
  });
  assert.equal(tokens, 1);
  assert.deepEqual((await visit.served()).slice(from), ["GET /api/token 201"]);
  await visit.context.close();
});

test("a computer that slept past the end has a new token at the first call", async () => {
  const visit = await world.visit();
  await world.time.leap(visit.context, 25 * HOUR); // also past the refresh token's end: MSAL asks in a hidden frame
  const left = await visit.page.evaluate(async () => {
    const token = await window.credentials[0]?.getToken();
    return (token?.expiresOnTimestamp ?? 0) - Date.now();
  });
  assert.ok(left > 50 * MINUTE);
  await visit.context.close();
});

test("when ACS is throttled, the client comes back after the time in Retry-After, not before", async () => {
  const visit = await world.visit();
  await sleepThroughTheEnd(visit);
  const from = (await visit.served()).length;
  const fault = { status: 429, headers: { "Retry-After": "20" }, times: 1 };
  await control(world.azure.acs, "PUT", "/local/faults/issue_access_token", fault);
  assert.ok((await answeredInTime(visit)).left);
  assert.deepEqual((await visit.served()).slice(from), ["GET /api/token 503", "GET /api/token 201"]);
  const [refused = 0, answered = 0] = (await visit.service.servedAt()).slice(-2);
  assert.ok(answered - refused >= 20 * SECOND, `${answered - refused} ms`);
  await visit.context.close();
});

test("a caller who sends too many requests waits as long as 429 says, and is told after half a minute", async () => {
  const visit = await world.visit();
  await sleepThroughTheEnd(visit);
  const answered = await answerInstead(visit, 429, { error: "too_many_requests" }, { "Retry-After": "12" });
  assert.equal((await answeredInTime(visit)).error, "too_many_requests");
  const [first = 0, second = 0, ...more] = answered;
  assert.ok(second - first >= 12 * SECOND, `${second - first} ms`);
  assert.ok(more.length <= 1);
  await visit.context.close();
});

test("an outage that the held token outlives goes unnoticed", async () => {
  const visit = await world.visit();
  await visit.context.route(`${visit.service.url}/**`, (route) => route.abort());
  for (let minute = 0; minute < 52; minute += 1) {
    await world.time.advance(MINUTE);
    const { left = 0 } = await asking(visit.page);
    assert.ok(left >= 4 * MINUTE);
  }
  await visit.context.unroute(`${visit.service.url}/**`);
  await eventually(async () => {
    await world.time.advance(5 * SECOND);
    return ((await asking(visit.page)).left ?? 0) > 30 * MINUTE;
  });
  await visit.context.close();
});

test("an outage that the held token does not outlive is told, and a renewal follows by itself", async () => {
  const visit = await world.visit();
  await visit.context.route(`${visit.service.url}/**`, (route) => route.abort());
  for (let minute = 0; minute < 65; minute += 1) {
    await world.time.advance(MINUTE);
  }
  await settledInTime(visit);
  const outcome = asking(visit.page);
  await settledInTime(visit);
  assert.equal((await outcome).error, "unreachable");
  assert.match((await outcome).message ?? "", /can't be reached, or does not list this page's origin/);
  await visit.context.unroute(`${visit.service.url}/**`);
  const from = (await visit.served()).length;
  await eventually(async () => {
    await world.time.advance(10 * SECOND);
    return (await visit.served()).length > from;
  });
  await settled(visit.page);
  assert.ok(((await asking(visit.page)).left ?? 0) > 50 * MINUTE);
  await visit.context.close();
});

/** Let time pass until nothing is on its way any more. */
async function settledInTime({ page }: Visit): Promise<void> {
  await eventually(async () => {
    await world.time.advance(10 * SECOND);
    return !(await page.evaluate(() => window.tokens.renewing));
  });
}

const GRAPH = { STORAGE_BACKEND: "graph", ENTRA_RESOLVE_SCOPE: "" };

test("a claims challenge is answered by a sign-in with the claims, and the request is repeated", async () => {
  await control(world.azure.entra, "PUT", "/local/conditions/pradeep", { multi_factor_required: true });
  const visit = await world.visit({ user: "pradeep", settings: GRAPH });
  const expected = ["GET /api/token 401", "GET /api/token 404", "POST /api/user 201", "GET /api/token 201"];
  assert.deepEqual(await visit.served(), expected);
  await visit.context.close();
});

test("where Entra ID wants to see the user for it, the popup asks with the claims", async () => {
  await control(world.azure.entra, "PUT", "/local/conditions/pradeep", { multi_factor_required: true });
  const interaction = { error: "interaction_required", error_description: "AADSTS50076: …", error_codes: [50076] };
  const headers = { "Access-Control-Allow-Origin": world.origin };
  const faults = [{ times: 2 }, { status: 400, headers, body: interaction }]; // after the code's redemption and on-behalf-of
  await control(world.azure.entra, "PUT", "/local/faults/token", faults);
  const visit = await world.visit({ user: "pradeep", settings: GRAPH, popups: 2 });
  assert.deepEqual(await visit.served(), ["GET /api/token 401", "GET /api/token 201"]);
  await visit.context.close();
});

test("a challenge that the new sign-in does not satisfy ends after one more request", async () => {
  const visit = await world.visit();
  await sleepThroughTheEnd(visit);
  const claims = btoa(JSON.stringify({ access_token: { acrs: { essential: true, value: "c1" } } }));
  const challenge = `Bearer realm="t", error="insufficient_claims", claims="${claims}"`;
  const answered = await answerInstead(visit, 401, { error: "insufficient_claims" }, { "WWW-Authenticate": challenge });
  const asked: string[] = [];
  visit.page.on("request", (request) => {
    if (request.url().includes("/oauth2/v2.0/token?")) {
      asked.push(new URLSearchParams(request.postData() ?? "").get("claims") ?? "");
    }
  });
  assert.equal((await asking(visit.page)).error, "insufficient_claims");
  assert.equal(answered.length, 2);
  assert.match(asked.at(-1) ?? "", /"acrs":\{"essential":true,"value":"c1"\}/);
  await visit.context.close();
});

test("a refused access token is replaced once, past MSAL's cache", async () => {
  const visit = await world.visit();
  await world.time.leap(visit.context, 62 * MINUTE); // the ACS token has ended, Entra ID's in MSAL's cache has not
  const answered = await answerInstead(visit, 401, { error: "invalid_token" }, { "WWW-Authenticate": "Bearer" });
  const { token: before } = await entraCalls();
  assert.equal((await asking(visit.page)).error, "invalid_token");
  assert.equal(answered.length, 2);
  assert.equal((await entraCalls()).token, before + 1);
  await visit.context.close();
});

test("signing out everywhere stops the renewals and disposes of the credentials", async () => {
  const visit = await world.visit();
  const offered = await offersSignOut(visit.service);
  const told = await visit.page.evaluate(() => window.tokens.signOutEverywhere().catch(({ error }) => String(error)));
  assert.equal(told, offered ? undefined : "sign_out_not_offered");
  assert.equal((await asking(visit.page)).error, "stopped");
  const disposed = await visit.page.evaluate(() => window.credentials[0]?.getToken().catch(String));
  assert.match(String(disposed), /disposed/);
  const from = (await visit.served()).length;
  await world.time.advance(25 * HOUR);
  assert.equal((await visit.served()).length, from);
  await visit.context.close();
});

for (const { status, body, told } of [
  { status: 204, body: {}, told: undefined },
  { status: 404, body: { error: "identity_not_found" }, told: undefined },
  { status: 404, body: { error: "not_found" }, told: "sign_out_not_offered" },
  { status: 405, body: { error: "method_not_allowed" }, told: "sign_out_not_offered" },
  { status: 409, body: { error: "identity_gone" }, told: "identity_gone" },
]) {
  test(`signing out everywhere, answered ${status} ${JSON.stringify(body)}, tells ${told ?? "success"}`, async () => {
    const visit = await world.visit();
    const answered = await answerInstead(visit, status, body);
    const outcome = await visit.page.evaluate(() => window.tokens.signOutEverywhere().catch(({ error }) => String(error)));
    assert.equal(outcome, told);
    assert.equal(answered.length, 1);
    await visit.context.close();
  });
}

test("what answers but is not the service is told as such", async () => {
  const visit = await world.visit();
  await sleepThroughTheEnd(visit);
  await answerInstead(visit, 200, { hello: "world" });
  const { error, message } = await asking(visit.page);
  assert.equal(error, "unexpected_answer");
  assert.match(message ?? "", /is not the authentication service/);
  await visit.context.close();
});

test("what this client is for: by themselves, the two packages first exchange a Teams token in vain", async () => {
  const visit = await world.visit({ user: "megan", teams: true });
  await visit.page.evaluate((service) => {
    window.tokens.stop();
    const entra = async (...scopes: string[]) => (await window.msal.acquireTokenSilent({ scopes })).accessToken;
    const tokenRefresher = async (): Promise<string> => {
      const api = await entra("api://5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01/access_as_user");
      const teams = await entra("https://auth.msft.communication.azure.com/Teams.ManageCalls");
      const headers = { Authorization: `Bearer ${api}`, "teams-user-aad-token": teams };
      const answer = await fetch(`${service}/api/token/teams`, { headers });
      return ((await answer.json()) as { token: string }).token;
    };
    const credential = new window.offered.AzureCommunicationTokenCredential({ tokenRefresher, refreshProactively: true });
    window.credentials = [credential];
    return credential.getToken().then(() => undefined);
  }, visit.service.url);
  const from = (await visit.served()).length;
  await world.time.advance(60 * MINUTE);
  while ((await visit.served()).length === from) {
    await world.time.advance(28 * SECOND);
  }
  const left = await visit.page.evaluate(async () => {
    const token = await window.credentials[0]?.getToken();
    return (token?.expiresOnTimestamp ?? 0) - Date.now();
  });
  assert.ok(left <= 10 * MINUTE, `${left} ms left after an exchange ten minutes before the end`);
  await visit.context.close();
});

test("the calling SDK makes its agent from the credential, and its signalling moves on to new tokens", async (t) => {
  const visit = await world.visit({ script: "calling" });
  const sent: { readonly token: string; readonly left: number }[] = [];
  visit.page.on("request", (request) => {
    const token = request.headers()["x-skypetoken"];
    if (token !== undefined) {
      const { exp } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { exp: number };
      sent.push({ token, left: exp * SECOND - world.time.now });
    }
  });
  const made = visit.page.evaluate(async () => {
    const { CallClient } = window.offered as typeof import("./calling.js");
    const [credential] = window.credentials;
    return credential && (await new CallClient().createCallAgent(credential)).kind;
  });
  for (let step = 0; step < 240; step += 1) {
    await world.time.advance(28 * SECOND); // nearly two hours in all, in which it tries to reach its network
    await settled(visit.page);
  }
  assert.equal(await made, "CallAgent");
  const tokens = new Set(sent.map(({ token }) => token)).size;
  const least = Math.min(...sent.map(({ left }) => left));
  t.diagnostic(`${sent.length} requests with ${tokens} tokens, at least ${(least / MINUTE).toFixed(1)} min left`);
  assert.ok(tokens >= 2, "it never sent a second token");
  assert.ok(least > 5 * MINUTE, "it sent a token near its end");
  await visit.context.close();
});
