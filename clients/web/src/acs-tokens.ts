/**
 * ACS access tokens for as long as the user stays signed in: MSAL in front, Azure Communication Services' credential
 * behind, the authentication service between them.
 *
 * Three clocks meet here. MSAL hands out an Entra ID token from its cache until five minutes before its end
 * (`tokenRenewalOffsetSeconds`). The credential of `@azure/communication-common` asks for a new ACS token ten minutes
 * before the old one's end, and again at half of what is left when it gets one with the same end; a refresh that fails ends
 * its schedule. A Teams user's ACS token ends with the Entra ID token it was exchanged for, so ten minutes before the end
 * MSAL would give the old one once more. This module renews earlier than both, and tells MSAL when its cache won't do.
 */
import { AzureCommunicationTokenCredential } from "@azure/communication-common";
import {
  AuthError,
  ClientConfigurationError,
  InteractionRequiredAuthError,
  ServerError,
  type AuthenticationResult,
  type IPublicClientApplication,
  type PopupRequest,
} from "@azure/msal-browser";
import { claimsOfChallenge, renewalTime, retryAfter } from "./rules.js";

/** An ACS access token and its end, in milliseconds since the epoch. */
export interface AcsToken {
  readonly token: string;
  readonly expiresOnTimestamp: number;
}

export interface AcsTokensOptions {
  /** The authentication service, such as `https://auth.contoso.com`. */
  readonly service: string;
  /** MSAL, initialized, with `clientCapabilities: ["CP1"]`: without it a claims challenge is refused, not told. */
  readonly msal: IPublicClientApplication;
  /** The scope of the service's API: `api://<client id of the API>/access_as_user`. */
  readonly scope: string;
  /** Get the tokens of the signed-in Teams user, not those of the user's own ACS identity. */
  readonly teams?: boolean;
  /**
   * Lets the user sign in. MSAL's popup by default, which browsers block unless the user has just clicked; give your
   * own to show a button first, or to use `acquireTokenRedirect`.
   */
  readonly signIn?: (request: PopupRequest) => Promise<AuthenticationResult>;
}

/** Why there is no token. `error` is the service's stable name, or one of `TRANSPORT_ERRORS`. */
export class AcsAuthError extends Error {
  override readonly name = "AcsAuthError";

  constructor(
    message: string,
    readonly error: string,
    readonly details: { readonly status?: number; readonly requestId?: string; readonly cause?: unknown } = {},
  ) {
    super(message, { cause: details.cause });
  }
}

/** The names of errors that do not come from the service. */
export const TRANSPORT_ERRORS = [
  "unreachable",
  "unexpected_answer",
  "clock_wrong",
  "sign_in_failed",
  "entra_unavailable",
  "stopped",
  "sign_out_not_offered",
] as const;

const TEAMS_SCOPES = ["Teams.ManageCalls", "Teams.ManageChats"].map(
  (name) => `https://auth.msft.communication.azure.com/${name}`,
);
const SECOND = 1000;
const MINUTE = 60 * SECOND;
/** How long a caller without a usable token waits for trouble to pass. */
const PATIENCE = 30 * SECOND;
const LONGEST_PAUSE = MINUTE;
/** A token with less than this left is not handed out. */
const USABLE = MINUTE;
/** Timers stand still while a computer sleeps: the time is looked at this often. */
const LOOK_EVERY = MINUTE;
/** More than any renewal is ahead of the end: an Entra ID token for Teams that has less left would be exchanged in vain. */
const TEAMS_TOKEN_LEFT = 20 * MINUTE;
/** The service answers within ten seconds unless it is set otherwise. */
const REQUEST_TIMEOUT = 30 * SECOND;
/** What a repeat with the same request can't cure: RFC 6749, section 5.2. */
const FINAL_OAUTH_ERRORS = [
  "invalid_request",
  "invalid_client",
  "invalid_grant",
  "unauthorized_client",
  "unsupported_grant_type",
  "invalid_scope",
  "access_denied",
];

/** Passing trouble; `pause` is in milliseconds, where the service named one. */
class Passing extends Error {
  constructor(
    readonly reason: AcsAuthError,
    readonly pause?: number,
  ) {
    super(reason.message);
  }
}

interface Wanted {
  readonly scopes: string[];
  /** The claims of a challenge, as JSON. */
  readonly claims?: string;
  /** Whether the cached token was refused. */
  readonly refused?: boolean;
  /** How long the token must still be good, in milliseconds. */
  readonly left?: number;
}

/**
 * The tokens of one user. Make one for each page or session, however many SDK clients use it: there is never more than
 * one request for a token on its way.
 */
export class AcsTokens {
  readonly #options: AcsTokensOptions;
  readonly #service: string;
  readonly #credentials: AzureCommunicationTokenCredential[] = [];
  #held: AcsToken | undefined;
  #renewAt = 0;
  #flight: Promise<AcsToken> | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #stopping = new AbortController();
  #userId: string | undefined;

  constructor(options: AcsTokensOptions) {
    this.#options = options;
    this.#service = options.service.replace(/\/+$/, "");
  }

  /** The user's ACS id (`8:acs:…`), known with the first token; a Teams user has none. */
  get userId(): string | undefined {
    return this.#userId;
  }

  /** Whether a request for a token is on its way. */
  get renewing(): boolean {
    return this.#flight !== undefined;
  }

  /**
   * A token that is good for a minute or more; renewed in the background long before its end.
   *
   * Rejects with `AcsAuthError` when there is none and none can be had: at once for what a repeat can't cure, after
   * half a minute of trouble otherwise. The next call tries again.
   */
  async get(): Promise<AcsToken> {
    this.#stopping.signal.throwIfAborted();
    const usable = this.#held !== undefined && this.#held.expiresOnTimestamp - Date.now() > USABLE;
    if (!usable) {
      return this.#renew();
    }
    this.#look();
    return this.#held as AcsToken;
  }

  /** The credential that the calling and chat SDKs take: one for each client, since a client may dispose of its own. */
  credential(): AzureCommunicationTokenCredential {
    const credential = new AzureCommunicationTokenCredential({
      tokenRefresher: () => this.get(),
      refreshProactively: true,
      ...(this.#held && { token: this.#held }),
    });
    this.#credentials.push(credential);
    return credential;
  }

  /**
   * Sign out everywhere: every ACS token of this user ends, on all devices; the ACS identity stays. Nothing is renewed
   * afterwards. The sign-in at Entra ID is MSAL's to end (`logoutPopup`).
   *
   * Rejects with `AcsAuthError`; its `error` is `sign_out_not_offered` where the service is too old to do this.
   */
  async signOutEverywhere(): Promise<void> {
    this.stop();
    await this.#flight?.catch(() => undefined); // a token issued after the sign-out would survive it
    try {
      await persistently(() => this.#call("DELETE", "/api/token"), PATIENCE);
    } catch (caught) {
      const error = reasonOf(caught);
      const notOffered =
        error instanceof AcsAuthError &&
        (error.details.status === 405 || (error.details.status === 404 && error.error !== "identity_not_found"));
      if (notOffered) {
        const message = "The service can't sign out everywhere yet; its operator must update it.";
        throw new AcsAuthError(message, "sign_out_not_offered", { ...error.details, cause: error });
      }
      if (!(error instanceof AcsAuthError && error.error === "identity_not_found")) {
        throw error;
      }
    }
  }

  /** Renew no longer, and dispose of the credentials. */
  stop(): void {
    this.#stopping.abort(new AcsAuthError("This user was signed out; make a new AcsTokens.", "stopped"));
    this.#held = undefined;
    clearTimeout(this.#timer);
    for (const credential of this.#credentials.splice(0)) {
      credential.dispose();
    }
  }

  /** Renew in the background when it is time; otherwise look again soon. */
  #look(): void {
    clearTimeout(this.#timer);
    if (this.#stopping.signal.aborted) {
      return;
    }
    const left = this.#renewAt - Date.now();
    if (left > 0) {
      this.#timer = setTimeout(() => this.#look(), Math.min(left, LOOK_EVERY));
    } else {
      this.#renew().catch(() => undefined); // whoever needs a token after the end of this one is told
    }
  }

  #renew(): Promise<AcsToken> {
    this.#flight ??= this.#obtain().finally(() => {
      this.#flight = undefined;
    });
    return this.#flight;
  }

  async #obtain(): Promise<AcsToken> {
    const { signal } = this.#stopping;
    const left = (this.#held?.expiresOnTimestamp ?? 0) - Date.now();
    let token: AcsToken;
    try {
      token = await persistently(() => this.#askForToken(), Math.max(left, PATIENCE), signal);
      signal.throwIfAborted();
    } catch (error) {
      // Only what may pass is tried again without being asked: anything else might open one sign-in after the other.
      this.#renewAt = error instanceof Passing && this.#held !== undefined ? Date.now() + LONGEST_PAUSE : Infinity;
      this.#look();
      throw reasonOf(error);
    }
    this.#held = token;
    this.#renewAt = renewalTime(Date.now(), token.expiresOnTimestamp, Math.random());
    this.#look();
    return token;
  }

  async #askForToken(): Promise<AcsToken> {
    const path = this.#options.teams ? "/api/token/teams" : "/api/token";
    let answer: unknown;
    try {
      answer = await this.#call("GET", path);
    } catch (error) {
      if (!(error instanceof AcsAuthError && error.error === "identity_not_found")) {
        throw error;
      }
      await this.#call("POST", "/api/user");
      answer = await this.#call("GET", path);
    }
    return this.#read(answer);
  }

  #read(answer: unknown): AcsToken {
    const { token, expiresOn, user } = (answer ?? {}) as Record<string, unknown>;
    // Seven fractional digits, of which ECMAScript promises to read three.
    const end = typeof expiresOn === "string" ? Date.parse(expiresOn.replace(/(\.\d{3})\d+/, "$1")) : NaN;
    if (typeof token !== "string" || Number.isNaN(end)) {
      throw new AcsAuthError(`What answers at ${this.#service} is not the authentication service.`, "unexpected_answer");
    }
    if (end <= Date.now()) {
      throw new AcsAuthError("The new token has already expired: this device's clock is wrong.", "clock_wrong");
    }
    this.#userId = (user as { communicationUserId?: string } | undefined)?.communicationUserId;
    return { token, expiresOnTimestamp: end };
  }

  /** One request; a refused Entra ID token is replaced once, with the claims that the service asks for. */
  async #call(method: string, path: string): Promise<unknown> {
    const wanted: Wanted = { scopes: [this.#options.scope] };
    let response = await this.#send(method, path, wanted);
    if (response.status === 401) {
      const claims = claimsOfChallenge(response.headers.get("WWW-Authenticate"));
      response = await this.#send(method, path, { ...wanted, ...(claims === undefined ? { refused: true } : { claims }) });
    }
    if (response.ok) {
      return response.status === 204 ? undefined : await response.json().catch(() => undefined);
    }
    throw await refusal(response);
  }

  async #send(method: string, path: string, wanted: Wanted): Promise<Response> {
    const headers = { Authorization: `Bearer ${await this.#entraToken(wanted)}`, ...(await this.#teamsHeader(wanted)) };
    try {
      const signal = AbortSignal.timeout(REQUEST_TIMEOUT);
      return await fetch(`${this.#service}${path}`, { method, headers, signal, credentials: "omit", redirect: "error" });
    } catch (cause) {
      const message = `${this.#service} can't be reached, or does not list this page's origin in CORS_ALLOWED_ORIGINS.`;
      throw new Passing(new AcsAuthError(message, "unreachable", { cause }));
    }
  }

  async #teamsHeader({ refused = false }: Wanted): Promise<Record<string, string>> {
    return this.#options.teams
      ? { "teams-user-aad-token": await this.#entraToken({ scopes: TEAMS_SCOPES, left: TEAMS_TOKEN_LEFT, refused }) }
      : {};
  }

  async #entraToken({ scopes, claims, refused = false, left = 0 }: Wanted): Promise<string> {
    const { msal } = this.#options;
    const account = msal.getActiveAccount() ?? msal.getAllAccounts()[0];
    const request = { scopes, ...(claims !== undefined && { claims }), ...(account && { account }) };
    if (account === undefined) {
      return this.#signIn(request);
    }
    try {
      const result = await msal.acquireTokenSilent({ ...request, forceRefresh: refused });
      if ((result.expiresOn?.getTime() ?? Infinity) - Date.now() >= left) {
        return result.accessToken;
      }
      return (await msal.acquireTokenSilent({ ...request, forceRefresh: true })).accessToken;
    } catch (error) {
      if (error instanceof InteractionRequiredAuthError) {
        return this.#signIn(request);
      }
      const reason = new AcsAuthError("Microsoft Entra ID gave no token.", "entra_unavailable", { cause: error });
      const final =
        error instanceof ClientConfigurationError ||
        (error instanceof ServerError && FINAL_OAUTH_ERRORS.includes(error.errorCode));
      throw final ? reason : new Passing(reason);
    }
  }

  async #signIn(request: PopupRequest): Promise<string> {
    const { msal, signIn = (wanted) => msal.acquireTokenPopup(wanted) } = this.#options;
    let result: AuthenticationResult;
    try {
      result = await signIn(request);
    } catch (cause) {
      const reason = cause instanceof AuthError ? cause.errorCode : "see the cause";
      throw new AcsAuthError(`The sign-in did not succeed (${reason}).`, "sign_in_failed", { cause });
    }
    msal.setActiveAccount(result.account);
    return result.accessToken;
  }
}

/**
 * Repeat what passing trouble stopped, after the pause that was asked for, within `patience` milliseconds; `signal` ends
 * it. Rejects with what `attempt` rejected with last.
 */
async function persistently<Answer>(
  attempt: () => Promise<Answer>,
  patience: number,
  signal?: AbortSignal,
): Promise<Answer> {
  const giveUpAt = Date.now() + patience;
  for (let failures = 0; ; failures += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Passing)) {
        throw error;
      }
      const backoff = SECOND + Math.random() * Math.min(LONGEST_PAUSE, SECOND * 2 ** failures);
      const pause = error.pause === undefined ? backoff : error.pause + Math.random() * SECOND;
      if (Date.now() + pause > giveUpAt) {
        throw error;
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, pause);
        signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
      });
      signal?.throwIfAborted();
    }
  }
}

function reasonOf(error: unknown): unknown {
  return error instanceof Passing ? error.reason : error;
}

/** What an answer that is no success means: passing trouble, or the service's own refusal. */
async function refusal(response: Response): Promise<Error> {
  const { status } = response;
  const body = (await response.json().catch(() => undefined)) as Record<string, unknown> | undefined;
  const named = typeof body?.["error"] === "string" && typeof body["message"] === "string";
  const reason = named
    ? new AcsAuthError(String(body["message"]), String(body["error"]), { status, requestId: String(body["requestId"]) })
    : new AcsAuthError(`The answer has status ${status} and is not the service's own.`, "unexpected_answer", { status });
  // An error page of a proxy in front of the service is passing trouble, an error of the service's own is not.
  const passing = status === 429 || status === 503 || (status >= 500 && !named);
  return passing ? new Passing(reason, retryAfter(response.headers.get("Retry-After"), Date.now())) : reason;
}
