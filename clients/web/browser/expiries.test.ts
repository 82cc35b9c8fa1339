/** A hundred expiries in a real Chromium: no gap, and one request for each. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { control } from "./local-azure.js";
import { MINUTE, settled, World, type Visit } from "./world.js";

const EXPIRIES = 100;
const STEP = 2.5 * MINUTE;

let world: World;
before(async () => {
  world = await World.open();
});
after(() => world.close());

/** What one look at every credential tells: how much is left of the worst token, and how many tokens there are. */
async function look({ page }: Visit): Promise<{ left: number; tokens: string[] }> {
  return page.evaluate(async () => {
    const given = await Promise.all(window.credentials.map((credential) => credential.getToken()));
    const ends = given.map(({ expiresOnTimestamp }) => expiresOnTimestamp);
    return { left: Math.min(...ends) - Date.now(), tokens: given.map(({ token }) => token) };
  });
}

/** Move on until as many tokens as `EXPIRIES` have ended; what was seen on the way. */
async function liveThrough(visit: Visit, lifetime: number): Promise<{ least: number; tokens: number; looks: number }> {
  const tokens = new Set<string>();
  const until = world.time.now + EXPIRIES * lifetime;
  let least = Infinity;
  let looks = 0;
  while (world.time.now < until) {
    await world.time.advance(STEP);
    await settled(visit.page);
    const seen = await look(visit);
    least = Math.min(least, seen.left);
    seen.tokens.forEach((token) => tokens.add(token));
    looks += 1;
  }
  return { least, tokens: tokens.size, looks };
}

for (const { name, teams, user, lifetime, route } of [
  { name: "an ACS identity's", teams: false, user: "alex", lifetime: 60 * MINUTE, route: "GET /api/token 201" },
  { name: "a Teams user's", teams: true, user: "megan", lifetime: 75 * MINUTE, route: "GET /api/token/teams 201" },
]) {
  test(`a hundred of ${name} tokens end, and nobody notices`, { timeout: 120_000 }, async (t) => {
    const visit = await world.visit({ user, teams, settings: { ACS_TOKEN_LIFETIME_MINUTES: "60" } });
    const before = (await control(world.azure.entra, "GET", "/local/calls")) as { token: number };
    const from = visit.service.served.length;
    const started = Date.now();
    const seen = await liveThrough(visit, lifetime);
    const served = visit.service.served.slice(from);
    const entra = ((await control(world.azure.entra, "GET", "/local/calls")) as { token: number }).token - before.token;
    t.diagnostic(
      `${EXPIRIES} lifetimes of ${lifetime / MINUTE} min: ${seen.looks} looks at 3 credentials, ` +
        `${served.length} requests at the service, ${entra} at Entra ID, at most ${visit.mostAtOnce()} at once, ` +
        `at least ${(seen.least / MINUTE).toFixed(1)} min left, ${((Date.now() - started) / 1000).toFixed(1)} s`,
    );
    assert.deepEqual(new Set(served), new Set([route]));
    assert.equal(visit.mostAtOnce(), 1);
    assert.ok(seen.least > 5 * MINUTE, `a token with ${seen.least} ms left was handed out`);
    // Renewed 11 to 16 minutes early, so a little oftener than once a lifetime, and each token was used.
    assert.ok(served.length >= EXPIRIES && served.length <= (EXPIRIES * lifetime) / (lifetime - 16 * MINUTE) + 1);
    assert.ok(seen.tokens >= served.length);
    await visit.context.close();
  });
}
