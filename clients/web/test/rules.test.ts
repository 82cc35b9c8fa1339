import assert from "node:assert/strict";
import { test } from "node:test";
import { claimsOfChallenge, renewalTime, retryAfter } from "../src/rules.js";

const MINUTE = 60_000;
const NOW = Date.UTC(2026, 10, 26, 12);
const DRAWN = [0, 0.25, 0.5, 0.999999];

test("a token is renewed 11 to 16 minutes before its end, before the SDK's ten minutes", () => {
  for (const lifetime of [32, 60, 75, 90, 1440].map((minutes) => minutes * MINUTE)) {
    for (const random of DRAWN) {
      const ahead = NOW + lifetime - renewalTime(NOW, NOW + lifetime, random);
      assert.ok(ahead >= 11 * MINUTE && ahead <= 16 * MINUTE, `${ahead}`);
    }
  }
});

test("whatever is left, a token is renewed after a quarter of that at the earliest, and in time", () => {
  for (let left = 1000; left < 48 * 60 * MINUTE; left *= 1.37) {
    for (const random of DRAWN) {
      const after = renewalTime(NOW, NOW + left, random) - NOW;
      assert.ok(after >= left / 4 && after <= left - Math.min(11 * MINUTE, left / 2) + 1, `${after} of ${left}`);
    }
  }
});

test("clients that signed in together come back spread over five minutes", () => {
  const times = DRAWN.map((random) => renewalTime(NOW, NOW + 60 * MINUTE, random));
  assert.ok(Math.max(...times) - Math.min(...times) > 4.9 * MINUTE);
});

for (const { header, pause } of [
  { header: null, pause: undefined },
  { header: "30", pause: 30_000 },
  { header: " 0 ", pause: 0 },
  { header: "Thu, 26 Nov 2026 12:00:10 GMT", pause: 10_000 },
  { header: "Thu, 26 Nov 2026 11:00:00 GMT", pause: 0 },
  { header: "-5", pause: undefined },
  { header: "1.5", pause: undefined },
  { header: "99999999999", pause: undefined },
  { header: "soon", pause: undefined },
  { header: "2026", pause: 2_026_000 },
]) {
  test(`Retry-After: ${String(header)} is a pause of ${String(pause)} ms`, () => {
    assert.equal(retryAfter(header, NOW), pause);
  });
}

const CLAIMS = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}';
const ENCODED = Buffer.from(CLAIMS).toString("base64");

for (const { name, header, claims } of [
  {
    name: "the service's own form",
    header: `Bearer realm="t", authorization_uri="https://login/t/oauth2/v2.0/authorize", error="insufficient_claims", claims="${ENCODED}"`,
    claims: CLAIMS,
  },
  { name: "another order", header: `Bearer claims="${ENCODED}", error="insufficient_claims"`, claims: CLAIMS },
  { name: "no header", header: null, claims: undefined },
  { name: "another error", header: `Bearer error="invalid_token", claims="${ENCODED}"`, claims: undefined },
  { name: "no claims", header: 'Bearer error="insufficient_claims"', claims: undefined },
  { name: "claims that are not base64", header: 'Bearer error="insufficient_claims", claims="%%"', claims: undefined },
  { name: "claims that are not JSON", header: 'Bearer error="insufficient_claims", claims="eHg="', claims: undefined },
  {
    name: "a parameter whose name only ends so",
    header: `Bearer error="insufficient_claims", other_claims="${ENCODED}"`,
    claims: undefined,
  },
]) {
  test(`a challenge with ${name} asks for ${claims === undefined ? "nothing" : "its claims"}`, () => {
    assert.equal(claimsOfChallenge(header), claims);
  });
}

test("claims beyond ASCII survive", () => {
  const claims = '{"access_token":{"x":{"value":"é€"}}}';
  const header = `Bearer error="insufficient_claims", claims="${Buffer.from(claims).toString("base64")}"`;
  assert.equal(claimsOfChallenge(header), claims);
});
