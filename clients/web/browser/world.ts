/** What every test in the browser shares: Chromium, the stand-ins, the built pages, and a user who signs in. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { bundle } from "../example/bundle.js";
import { serve } from "../example/serve.js";
import { FakedTime } from "./faked-time.js";
import { eventually, startLocalAzure, startService, type LocalAzure, type Service } from "./local-azure.js";
import type * as Offered from "./page.js";

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;

/** Well known: the local directory of the stand-ins. */
const TENANT = "7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11";
const API = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01";
const BROWSER_CLIENT = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e02";
const TEAMS_CLIENT = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e03";

const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
/** Chromium looks for nothing by itself. */
const FLAGS = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

declare global {
  interface Window {
    readonly offered: typeof Offered;
    msal: Offered.PublicClientApplication;
    tokens: Offered.AcsTokens;
    credentials: Offered.AzureCommunicationTokenCredential[];
  }
}

/** One user in one browser profile, at a service, in a time of their own making. */
export interface Visit {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly service: Service;
  /** What the service has served since the visit began. */
  readonly served: () => Promise<string[]>;
  /** The most requests for tokens that the page had on their way at the same time. */
  readonly mostAtOnce: () => number;
}

export interface Wishes {
  readonly user?: string;
  readonly teams?: boolean;
  /** A service of the visit's own, with these settings. */
  readonly settings?: Record<string, string>;
  /** How many sign-ins the user meets. */
  readonly popups?: number;
  readonly script?: "page" | "calling";
}

export class World {
  readonly #services: Service[] = [];
  #common: Promise<Service> | undefined;

  private constructor(
    readonly directory: string,
    readonly time: FakedTime,
    readonly azure: LocalAzure,
    readonly browser: Browser,
    readonly pages: Server,
  ) {}

  static async open(): Promise<World> {
    const directory = await mkdtemp(`${tmpdir()}/acs-auth-browser-`);
    await buildPages(`${directory}/pages/`);
    const time = new FakedTime(`${directory}/now`);
    const [azure, browser, pages] = await Promise.all([
      startLocalAzure(directory, time),
      chromium.launch({ executablePath: CHROMIUM, args: FLAGS, chromiumSandbox: process.getuid?.() !== 0 }),
      serve(`${directory}/pages/`, 0),
    ]);
    return new World(directory, time, azure, browser, pages);
  }

  get origin(): string {
    return `http://localhost:${(this.pages.address() as AddressInfo).port}`;
  }

  /** Another service, whose tokens live an hour. */
  async service(settings: Record<string, string> = {}): Promise<Service> {
    const service = await startService(this.azure, { CORS_ALLOWED_ORIGINS: this.origin, ACS_TOKEN_LIFETIME_MINUTES: "60", ...settings });
    this.#services.push(service);
    return service;
  }

  /** Put a built page once more beside the others, with some of its words replaced. */
  async publish(name: string, page: string, replaced: Readonly<Record<string, string>>): Promise<void> {
    let text = await readFile(`${this.directory}/pages/${page}`, "utf8");
    for (const [word, instead] of Object.entries(replaced)) {
      assert.ok(text.includes(word), `${page} does not say ${word}`);
      text = text.replaceAll(word, instead);
    }
    await writeFile(`${this.directory}/pages/${name}`, text);
  }

  /** A fresh profile, in which time passes and nothing outside this machine can be reached. */
  async context(): Promise<BrowserContext> {
    const context = await this.browser.newContext({ ignoreHTTPSErrors: true }); // the stand-ins' own authority
    await context.route((url) => url.hostname !== "localhost", (route) => route.abort());
    await context.addInitScript(seedRandom);
    await this.time.install(context);
    return context;
  }

  /** A user who has signed in; `tokens` and three of its credentials are the page's, and time stands still. */
  async visit(wishes: Wishes = {}): Promise<Visit> {
    const { user = "alex", teams = false, settings, popups = 1, script = "page" } = wishes;
    const service = await (settings === undefined ? (this.#common ??= this.service()) : this.service(settings));
    const before = (await service.served()).length;
    const context = await this.context();
    const page = await context.newPage();
    const mostAtOnce = watch(page, service);
    await page.goto(`${this.origin}/${script}.html`);
    const made = page.evaluate(
      async (wanted) => {
        const { AcsTokens, PublicClientApplication } = window.offered;
        const msal = new PublicClientApplication({
          auth: {
            clientId: wanted.client,
            authority: `${wanted.entra}/${wanted.tenant}`,
            knownAuthorities: [new URL(wanted.entra).host],
            redirectUri: `${location.origin}/redirect.html`,
            clientCapabilities: ["CP1"],
          },
        });
        await msal.initialize();
        window.msal = msal;
        const { service, teams } = wanted;
        window.tokens = new AcsTokens({ service, msal, teams, scope: `api://${wanted.api}/access_as_user` });
        await window.tokens.get();
        window.credentials = [1, 2, 3].map(() => window.tokens.credential());
      },
      {
        service: service.url,
        entra: this.azure.entra,
        client: teams ? TEAMS_CLIENT : BROWSER_CLIENT,
        tenant: TENANT,
        api: API,
        teams,
      },
    );
    const picked = (async () => {
      for (let popup = 0; popup < popups; popup += 1) {
        await pick(page, user);
      }
    })();
    await Promise.all([picked, made]);
    await this.time.stop(context);
    return { page, context, service, mostAtOnce, served: async () => (await service.served()).slice(before) };
  }

  async close(): Promise<void> {
    await this.browser.close();
    await Promise.all(this.#services.map((service) => service.stop()));
    await this.azure.stop();
    await new Promise((closed) => this.pages.close(closed));
    await rm(this.directory, { recursive: true });
  }
}

/** Pick a user in the popup that opens next. */
export async function pick(page: Page, user: string): Promise<void> {
  const popup = await page.waitForEvent("popup");
  await popup.locator(`button[value="${user}"]`).click();
}

/** Wait, in real time, until no renewal is on its way. */
export function settled(page: Page): Promise<void> {
  return eventually(() => page.evaluate(() => !window.tokens.renewing));
}

/** The same jitter in every run (a linear congruential generator, Numerical Recipes' constants). */
function seedRandom(): void {
  let state = 20;
  Math.random = () => (state = (1664525 * state + 1013904223) % 2 ** 32) / 2 ** 32;
}

function watch(page: Page, service: Service): () => number {
  const underway = new Set<unknown>();
  let most = 0;
  page.on("request", (request) => {
    if (request.url().startsWith(`${service.url}/api/token`) && request.method() === "GET") {
      underway.add(request);
      most = Math.max(most, underway.size);
    }
  });
  page.on("requestfinished", (request) => underway.delete(request));
  page.on("requestfailed", (request) => underway.delete(request));
  return () => most;
}

async function buildPages(directory: string): Promise<void> {
  await bundle(directory, { page: "browser/page.ts", calling: "browser/calling.ts" });
  const page = (script: string): string =>
    `<!doctype html><title>Test</title><script type="module">import * as offered from "./${script}";` +
    "Object.assign(window, { offered });</script>";
  await writeFile(`${directory}page.html`, page("page.js"));
  await writeFile(`${directory}calling.html`, page("calling.js"));
}
