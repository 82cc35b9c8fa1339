/** The service's console at `/`, driven as a developer does; its pictures are those that the documentation shows. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, afterEach, before, test } from "node:test";
import type { BrowserContext, Page } from "playwright-core";
import { findings } from "./axe.js";
import { complaintsOf } from "./complaints.js";
import { control, eventually, type Service } from "./local-azure.js";
import { World } from "./world.js";

/** Where pictures go; `make browser SCREENSHOTS=docs/images` renews those of the documentation. */
const PICTURES = process.env["SCREENSHOTS"] || "build/screenshots";
const NARROW = { width: 390, height: 844 };
const WIDE = { width: 1100, height: 900 };

let world: World;
let service: Service;
before(async () => {
  await mkdir(PICTURES, { recursive: true });
  world = await World.open();
  service = await world.service({ ENVIRONMENT: "development", STORAGE_BACKEND: "cosmos", COSMOS_CREATE_IF_MISSING: "true" });
});
afterEach(async () => {
  for (const stand_in of [world.azure.entra, world.azure.acs, world.azure.cosmos]) {
    await control(stand_in, "DELETE", "/local/faults");
  }
});
after(() => world.close());

interface Visit {
  readonly page: Page;
  readonly context: BrowserContext;
  /** What the browser complained of: errors, and what the content security policy forbade. */
  readonly complaints: readonly string[];
}

/** The console; with a user, after the sign-in by its button. */
async function visit(user?: string): Promise<Visit> {
  const context = await world.context();
  const page = await context.newPage();
  const complaints = complaintsOf(page);
  page.setDefaultTimeout(15_000);
  await page.setViewportSize(WIDE);
  await page.goto(service.url);
  if (user !== undefined) {
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator(`button[value="${user}"]`).click();
    await page.getByText("The service accepts this token.").waitFor();
  }
  return { page, context, complaints };
}

/** Click a call and wait until it was answered with `expected`. */
async function call(page: Page, name: string, expected: string): Promise<void> {
  await page.getByRole("button", { name, exact: true }).click();
  await page.locator("#answer-status", { hasText: expected }).waitFor();
}

const flow = (page: Page): Promise<string[]> => page.locator("#flow li").allInnerTexts();

test("one button signs in, and the service says of each claim whether it is good", async () => {
  const { page, context, complaints } = await visit("alex");
  await page.getByText("Signed in as Alex Wilber.").waitFor();
  const rows = page.locator("#claims tbody tr");
  assert.ok((await rows.count()) > 8);
  const audience = rows.filter({ has: page.locator("th", { hasText: /^aud$/ }) }).first();
  assert.match(await audience.innerText(), /5e1f0a2b.*one of .*✓ good/s);
  assert.equal(await page.locator("td.refused").count(), 0);
  assert.doesNotMatch(page.url(), /code=/);
  assert.deepEqual(complaints, []);
  await context.close();
});

test("from Create to Delete each call shows its answer, its code and what it caused", async () => {
  const { page, context, complaints } = await visit("alex");
  await call(page, "Get", "404 identity_not_found");
  await call(page, "Create", "POST /api/user → 201");
  assert.match((await flow(page)).join("\n"), /Store[\s\S]*ACS/);
  assert.match(await page.locator("#flow").innerText(), /create\w*: ok, [\d.]+ ms/);
  await call(page, "Token", "GET /api/token → 201");
  const facts = await page.locator("#acs-facts").innerText();
  assert.match(facts, /8:acs:/);
  assert.match(facts, /chat: everything about threads and messages; calls: start and join them/);
  assert.match(await page.locator("#acs-time-left").innerText(), /^(59|60) min|^1 h 0 min/);
  await call(page, "Teams token", "GET /api/token/teams → 201");
  assert.match(await page.locator("#acs-facts").innerText(), /orgid/);
  for (const [language, code] of [["TypeScript", /new AcsTokens/], ["Python", /requests\.get/], ["curl", /^curl -i -X GET/]] as const) {
    await page.getByRole("tab", { name: language }).click();
    assert.match(await page.locator("#snippet").innerText(), code);
  }
  page.once("dialog", (dialog) => void dialog.accept());
  await call(page, "Delete", "DELETE /api/user → 204");
  assert.equal(await page.locator("#acs").isVisible(), false);
  assert.deepEqual(complaints, []);
  await context.close();
});

test("a deletion that is not confirmed is not sent", async () => {
  const { page, context } = await visit("alex");
  await call(page, "Create", "POST /api/user → 20");
  page.once("dialog", (dialog) => void dialog.dismiss());
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await call(page, "Get", "GET /api/user → 200");
  await context.close();
});

test("sign-out is offered where the service's description has it, and nowhere else", async () => {
  const { page, context } = await visit("alex");
  const document = (await (await fetch(`${service.url}/openapi.json`)).json()) as { paths: Record<string, object> };
  const offered = "delete" in (document.paths["/api/token"] ?? {});
  assert.equal(await page.getByRole("button", { name: "Sign out", exact: true }).count(), offered ? 1 : 0);
  await context.close();
});

test("faults of the stand-ins are switched on and off, and the client sees refusals, retries and the end of them", async () => {
  const { page, context } = await visit("megan");
  await page.getByLabel("ACS is busy (429)").check();
  await page.getByText("The fault is on").waitFor();
  await call(page, "Create", "503 service_unavailable, come back in");
  assert.match(await page.locator("#flow .failed").last().innerText(), /create\w*: (429|throttled), \d+ ms, \d+ retr/);
  await page.locator("#flow-section").screenshot({ path: `${PICTURES}/console-fault.png` });
  await page.getByLabel("ACS is busy (429)").uncheck();
  await page.getByText("The fault is off.").waitFor();
  await page.getByLabel(/Cosmos DB writes a new item/).check();
  await page.getByText("The fault is on").waitFor();
  await call(page, "Create", "POST /api/user → 201");
  assert.match(await page.locator("#flow").innerText(), /create: unavailable, .*get: ok/s); // written, unanswered, looked up
  await context.close();
});

test("the user is switched, and a token of a new key is accepted", async () => {
  const { page, context, complaints } = await visit();
  await page.getByRole("button", { name: "Rotate Entra ID's keys" }).click();
  await page.getByText("Entra ID signs with a new key").waitFor();
  await page.getByLabel("User").selectOption("zoe");
  await page.getByRole("button", { name: "Switch user" }).click();
  await page.getByText("Signed in as Zoë Ångström.").waitFor();
  await page.getByText("The service accepts this token.").waitFor();
  await call(page, "Teams token", "GET /api/token/teams → 201");
  assert.deepEqual(complaints, []);
  await context.close();
});

test("it is light and dark, works by keyboard and at 390 pixels, and axe finds nothing", async () => {
  const { page, context } = await visit("alex");
  await call(page, "Create", "POST /api/user → 20");
  await call(page, "Token", "GET /api/token → 201");
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    for (const size of [WIDE, NARROW]) {
      await page.setViewportSize(size);
      assert.deepEqual(await findings(page), [], `${colorScheme}, ${size.width} pixels`);
      const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(beyond, 0, `pixels of sideways scroll at ${size.width}`);
    }
    await page.setViewportSize(WIDE);
    await page.screenshot({ path: `${PICTURES}/console-${colorScheme}.png` });
  }
  await page.setViewportSize(NARROW);
  await page.emulateMedia({ colorScheme: "light" });
  await page.screenshot({ path: `${PICTURES}/console-narrow.png` });
  await page.getByRole("tab", { name: "curl" }).focus();
  await page.keyboard.press("ArrowRight");
  assert.match(await page.locator("#snippet").innerText(), /AcsTokens/);
  await page.getByRole("button", { name: "Get", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#answer-status", { hasText: "GET /api/user → 200" }).waitFor();
  await context.close();
});

test("a sign-in that is cancelled is told as such", async () => {
  const { page, context } = await visit();
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('button[value=""]').click();
  await page.getByText("Not signed in: ").waitFor();
  await context.close();
});

test("in production the console is there only when it is switched on, and then tells no verdicts", async () => {
  const plain = await world.service({ ENVIRONMENT: "production" });
  const shown = await world.service({ ENVIRONMENT: "production", CONSOLE: "true" });
  const context = await world.context();
  const page = await context.newPage();
  await page.goto(plain.url);
  assert.equal(await page.getByRole("button").count(), 0);
  assert.deepEqual(await findings(page), []);
  await page.goto(`${plain.url}/nowhere`);
  await page.getByRole("heading", { name: "Not found" }).waitFor();
  await page.goto(shown.url);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('button[value="alex"]').click();
  await page.getByText("In production the service does not explain tokens here").waitFor();
  await eventually(() => page.locator("#calls").isVisible());
  await call(page, "Create", "POST /api/user → 20");
  await page.getByText("only in development").waitFor();
  await context.close();
});
