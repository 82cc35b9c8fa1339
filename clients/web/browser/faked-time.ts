/** One clock for the browser's pages, the stand-ins and the service: it stands still until a test moves it. */
import { existsSync, renameSync, writeFileSync } from "node:fs";
import type { BrowserContext } from "playwright-core";

const LIBRARIES = ["/usr/lib", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"].map(
  (directory) => `${directory}/faketime/libfaketimeMT.so.1`,
);

/**
 * The Python processes read the time from a file, by Debian's libfaketime; their monotonic clocks go on, so that
 * timeouts and event loops work as always. Pages have Playwright's clock, under which each timer runs at its own time.
 * libfaketime won't do there: Chromium starts under it only as a single process, and then dates move and timers don't.
 */
export class FakedTime {
  #now = 0;
  readonly #file: string;
  readonly #contexts = new Set<BrowserContext>();

  constructor(file: string) {
    this.#file = file;
    this.#set(Math.floor(Date.now() / 1000) * 1000);
  }

  /** Milliseconds since the epoch, a whole second. */
  get now(): number {
    return this.#now;
  }

  /** What a process needs in its environment to live in this time. */
  environment(): Record<string, string> {
    const library = LIBRARIES.find((path) => existsSync(path));
    if (library === undefined) {
      throw new Error("libfaketime is missing; on Debian, install the package faketime.");
    }
    return {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      TZ: "UTC",
    };
  }

  /** Let the pages of a context live in this time: at first it passes there, so that MSAL's sign-in works. */
  async install(context: BrowserContext): Promise<void> {
    await context.clock.install({ time: this.#now });
    this.#contexts.add(context);
    context.once("close", () => this.#contexts.delete(context));
  }

  /** From now on time stands still in the pages as well. */
  async stop(context: BrowserContext): Promise<void> {
    this.#set(this.#now + 120_000); // past whatever real time the sign-in took
    await context.clock.pauseAt(this.#now);
  }

  /** Move on; the timers of the pages run at their times. */
  async advance(milliseconds: number): Promise<void> {
    this.#set(this.#now + milliseconds); // first: a token must not be from the future for whoever checks it
    for (const context of this.#contexts) {
      await context.clock.runFor(milliseconds);
    }
  }

  /** Leap over `milliseconds` as a computer does that sleeps: dates move on, the timers of the pages don't run. */
  async leap(context: BrowserContext, milliseconds: number): Promise<void> {
    this.#set(this.#now + milliseconds);
    await context.clock.setSystemTime(this.#now);
  }

  #set(now: number): void {
    this.#now = now;
    const written = `${this.#file}.new`;
    writeFileSync(written, new Date(this.#now).toISOString().slice(0, 19).replace("T", " "));
    renameSync(written, this.#file);
  }
}
