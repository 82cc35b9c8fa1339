/** The rules that need neither network nor browser. */

const MINUTE = 60_000;
/** Before the ten minutes at which the SDK's credential asks by itself. */
const AHEAD = 11 * MINUTE;
/** Users who signed in together do not come back together. */
const SPREAD = 5 * MINUTE;

/**
 * When to renew a token that was received at `now` and ends at `end` (milliseconds since the epoch): 11 to 16 minutes
 * before the end, drawn by `random` (0 to 1); for a token with little left, when a quarter to a half of that has passed.
 */
export function renewalTime(now: number, end: number, random: number): number {
  const left = end - now;
  return end - Math.min(AHEAD, left / 2) - random * Math.min(SPREAD, left / 4);
}

/**
 * The pause that a `Retry-After` header asks for, in milliseconds from `now`: seconds or a date (RFC 9110, section
 * 10.2.3). `undefined` when there is none that can be read.
 */
export function retryAfter(header: string | null, now: number): number | undefined {
  if (header === null) {
    return undefined;
  }
  const text = header.trim();
  if (/^\d{1,9}$/.test(text)) {
    return Number(text) * 1000;
  }
  const date = /^[A-Z][a-z]{2}, /.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/**
 * The claims, as JSON, that a `WWW-Authenticate` header challenges the client to sign in again with:
 * https://learn.microsoft.com/entra/identity-platform/claims-challenge. `undefined` when it does not.
 */
export function claimsOfChallenge(header: string | null): string | undefined {
  const parameter = (name: string): string | undefined =>
    new RegExp(`(?:^|[\\s,])${name}\\s*=\\s*"([^"]*)"`, "i").exec(header ?? "")?.[1];
  const claims = parameter("claims");
  if (parameter("error") !== "insufficient_claims" || claims === undefined) {
    return undefined;
  }
  try {
    const decoded = new TextDecoder().decode(Uint8Array.from(atob(claims), (character) => character.charCodeAt(0)));
    JSON.parse(decoded);
    return decoded;
  } catch {
    return undefined;
  }
}
