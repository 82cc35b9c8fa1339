/** Reads tokens to show them. It judges nothing: that is the service's. */

const SCOPES = {
  chat: "chat: everything about threads and messages",
  "chat.join": "chat: take part in threads, but not create or delete them",
  "chat.join.limited": "chat: take part in threads, without adding or removing people",
  voip: "calls: start and join them",
  "voip.join": "calls: join them, but not start new ones",
};

/** Header and claims of a JWT; `undefined` for what is none. */
export function decoded(token) {
  try {
    const [header, claims] = token.split(".", 2).map((part) => {
      const bytes = Uint8Array.from(atob(part.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
      return JSON.parse(new TextDecoder().decode(bytes));
    });
    return { header, claims };
  } catch {
    return undefined;
  }
}

/** What an ACS access token is, as pairs of a name and words. */
export function acsFacts(token) {
  const claims = decoded(token)?.claims ?? {};
  const scopes = String(claims.acsScope ?? "").split(",").filter(Boolean).map((scope) => SCOPES[scope] ?? scope);
  return {
    expires: Number(claims.exp) * 1000,
    issued: Number(claims.iat ?? claims.exp) * 1000,
    facts: [
      ["Identity", claims.skypeid === undefined ? "not stated" : `8:${claims.skypeid}`],
      ["Good for", scopes.join("; ") || "a Teams user's calls and chats"],
      ["Resource", claims.resourceId ?? "not stated"],
      ["Until", Number.isFinite(claims.exp) ? new Date(claims.exp * 1000).toLocaleString() : "not stated"],
    ],
  };
}

/** A time from now in words: `23 h 59 min`, `4 min 3 s`, `over`. */
export function timeLeft(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (!(seconds > 0)) {
    return "over";
  }
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${seconds % 60} s`;
}
