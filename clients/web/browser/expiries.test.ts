/** A hundred expiries in a real Chromium: no gap, and one request for each. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { control } from "./local-azure.js";
import { MINUTE, SECOND, World, type Visit } from "./world.js";

const EXPIRIES = 100;
/** Shorter than the client waits for an answer: in the page's time, answers come when the step is over. */
const STEP = 28 * SECOND;
const STRIDE = 10 * MINUTE;
/** How much a token has left when the first renewal may come: 16 minutes, and some. */
const QUIET_UNTIL = 17 * MINUTE;

let world: World;
before(async () => {
  world = await World.open();
});
after(() => world.close());

interface Seen {
  /** How much is left of the worst token that the credentials give. */
  readonly left: number;
  readonly tokens: string[];
  /** Whether the client has renewed, and the credentials have not asked for the new token yet. */
  readonly ahead: boolean;
}

/** What the credentials give, once no renewal is on its way. */
async function look({ page }: Visit): Promise<Seen> {
  for (const deadline = Date.now() + 20 * SECOND; ; assert.ok(Date.now() < deadline, "a renewal did not end")) {
    const seen = await page.evaluate(async () => {
      const given = await Promise.all(window.credentials.map((credential) => credential.getToken()));
      const ends = given.map(({ expiresOnTimestamp }) => expiresOnTimestamp);
      const left = Math.min(...ends) - Date.now();
      const ahead = (await window.tokens.get()).expiresOnTimestamp > Math.min(...ends);
      return { left, tokens: given.map(({ token }) => token), ahead, renewing: window.tokens.renewing };
    });
    if (!seen.renewing) {
      return seen;
    }
  }
}

/**
 * Move on until `EXPIRIES` lifetimes have passed, half a minute at a time where a renewal may come,
 * faster in between; what was seen on the way.
 */
async function liveThrough(visit: Visit, lifetime: number): Promise<{ least: number; tokens: number; looks: number }> {
  const tokens = new Set<string>();
  const until = world.time.now + EXPIRIES * lifetime;
  let least = Infinity;
  let looks = 0;
  for (let seen = await look(visit); world.time.now < until; looks += 1) {
    const quiet = seen.ahead ? MINUTE : seen.left - QUIET_UNTIL;
    await world.time.advance(quiet > STEP ? Math.min(quiet, STRIDE) : STEP);
    seen = await look(visit);
    least = Math.min(least, seen.left);
    seen.tokens.forEach((token) => tokens.add(token));
  }
  return { least, tokens: tokens.size, looks };
}

for (const { name, teams, user, lifetime, route } of [
  { name: "an ACS identity's", teams: false, user: "alex", lifetime: 60 * MINUTE, route: "GET /api/token 201" },
  { name: "a Teams user's", teams: true, user: "megan", lifetime: 75 * MINUTE, route: "GET /api/token/teams 201" },
]) {
  test(`a hundred of ${name} tokens end, and nobody notices`, { timeout: 120_000 }, async (t) => {
    const visit = await world.visit({ user, teams });
    const before = (await control(world.azure.entra, "GET", "/local/calls")) as { token: number };
    const from = (await visit.served()).length;
    const started = Date.now();
    const seen = await liveThrough(visit, lifetime);
    const served = (await visit.served()).slice(from);
    const entra = ((await control(world.azure.entra, "GET", "/local/calls")) as { token: number }).token - before.token;
    t.diagnostic(
      `${EXPIRIES} lifetimes of ${lifetime / MINUTE} min: ${seen.looks} looks at 3 credentials, ` +
        `${served.length} requests at the service, ${entra} at Entra ID, at most ${visit.mostAtOnce()} at once, ` +
        `at least ${(seen.least / MINUTE).toFixed(1)} min left, ${((Date.now() - started) / 1000).toFixed(1)} s`,
    );
    assert.deepEqual(new Set(served), new Set([route]));
    assert.equal(visit.mostAtOnce(), 1);
    assert.ok(seen.least > 9 * MINUTE, `a token with ${seen.least} ms left was handed out`);
    // Renewed 11 to 16 minutes early, so a little oftener than once a lifetime; every token was used.
    assert.ok(served.length >= EXPIRIES && served.length <= (EXPIRIES * lifetime) / (lifetime - 16 * MINUTE) + 1);
    assert.ok(seen.tokens >= served.length, `${seen.tokens} tokens`);
    await visit.context.close();
  });
}
