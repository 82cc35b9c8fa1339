/** `/docs`, as a developer uses it: sign in, try a call, on a telephone and in the dark. */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, before, test } from "node:test";
import type { BrowserContext, Page } from "playwright-core";
import { findings } from "./axe.js";
import { complaintsOf } from "./complaints.js";
import type { Service } from "./local-azure.js";
import { pick, World } from "./world.js";

/** Where pictures go, to be looked at: the documentation shows none of them. */
const PICTURES = "build/screenshots";
const NARROW = { width: 390, height: 844 };
const WIDE = { width: 1100, height: 900 };

let world: World;
let service: Service;
before(async () => {
  await mkdir(PICTURES, { recursive: true });
  world = await World.open();
  service = await world.service({ ENVIRONMENT: "development" });
});
after(() => world.close());

async function open(): Promise<{ page: Page; context: BrowserContext; complaints: readonly string[] }> {
  const context = await world.context();
  const page = await context.newPage();
  const complaints = complaintsOf(page);
  page.setDefaultTimeout(60_000);
  await page.setViewportSize(WIDE);
  await page.goto(`${service.url}/docs`);
  await page.locator(".opblock").first().waitFor();
  return { page, context, complaints };
}

/** The part of the page that is about one operation, opened. */
async function operation(page: Page, id: string): Promise<ReturnType<Page["locator"]>> {
  const block = page.locator(`[id$="-${id}"]`);
  if ((await block.getAttribute("class"))?.includes("is-open") !== true) {
    await block.locator(".opblock-summary-control").click();
  }
  return block;
}

/** What on the page can be scrolled sideways in itself. */
function scrolledSideways(): string[] {
  const wider = [...document.querySelectorAll(".swagger-ui *")].filter(
    (each) => each.scrollWidth > each.clientWidth && ["auto", "scroll"].includes(getComputedStyle(each).overflowX),
  );
  return wider.map((each) => `${each.tagName}.${each.className}: ${each.scrollWidth} > ${each.clientWidth}`);
}

test("Authorize opens on the sign-in, asks for no secret and no token, and then calls are the user's own", async () => {
  const { page, context, complaints } = await open();
  await page.getByRole("button", { name: "Authorize" }).click();
  await page.locator("#client_id_authorizationCode").waitFor();
  await page.screenshot({ path: `${PICTURES}/docs-authorize.png` });
  assert.equal(await page.locator(".auth-container").count(), 1);
  assert.equal(await page.locator("#client_secret_authorizationCode").isVisible(), false);
  assert.equal(await page.locator("#auth-bearer-value").count(), 0);
  assert.deepEqual(await page.locator(".auth-container input[type=text]:visible").count(), 1); // the client's id, filled in
  assert.equal(await page.locator(".auth-container input[type=password]:visible").count(), 0);
  await Promise.all([pick(page, "alex"), page.locator(".auth-btn-wrapper button.authorize").click()]);
  await page.locator(".auth-btn-wrapper button", { hasText: "Logout" }).waitFor();
  await page.getByRole("button", { name: "Close", exact: true }).click();
  for (const [id, status] of [["create_user", "201"], ["get_token", "201"], ["delete_user", "204"], ["get_user", "404"]] as const) {
    const block = await operation(page, id);
    await block.getByRole("button", { name: "Execute" }).click(); // it can be tried out from the start
    await block.locator(".live-responses-table .response-col_status", { hasText: status }).waitFor();
  }
  assert.deepEqual(complaints, []);
  await context.close();
});

test("it is dark where the system is, and nothing is wider than 390 pixels", async () => {
  const { page, context, complaints } = await open();
  const block = await operation(page, "get_token");
  await block.getByRole("button", { name: "Execute" }).click();
  await block.locator(".live-responses-table .response-col_status", { hasText: "401" }).waitFor();
  await page.locator(".models-control").scrollIntoViewIfNeeded();
  for (const closed of await page.locator(".models .model-box-control[aria-expanded=false]").all()) {
    await closed.click();
  }
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await page.locator(colorScheme === "dark" ? "html.dark-mode" : "html:not(.dark-mode)").waitFor();
    for (const [name, size] of [["wide", WIDE], ["narrow", NARROW]] as const) {
      await page.setViewportSize(size);
      const beyond = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(beyond, 0, `pixels of sideways scroll, ${name}`);
      assert.deepEqual(await page.evaluate(scrolledSideways), []);
      await page.screenshot({ path: `${PICTURES}/docs-${colorScheme}-${name}.png`, fullPage: true });
    }
  }
  await page.getByRole("button", { name: "Authorize" }).click();
  await page.locator("#client_id_authorizationCode").waitFor();
  const box = await page.locator(".modal-ux").boundingBox();
  assert.ok(box !== null && box.x >= 0 && box.x + box.width <= NARROW.width);
  await page.screenshot({ path: `${PICTURES}/docs-authorize-narrow.png` });
  assert.deepEqual(complaints, []);
  await context.close();
});

/** Rules that Swagger UI's own elements break, whatever the page around them. */
const OF_SWAGGER_UI = ["button-name", "heading-order", "label-content-name-mismatch", "nested-interactive", "region", "select-name"];

test("axe finds nothing but what is Swagger UI's own", async () => {
  const { page, context } = await open();
  const ownFindings = async (...excepted: string[]): Promise<string[]> =>
    (await findings(page)).filter((found) => ![...OF_SWAGGER_UI, ...excepted].some((rule) => found.startsWith(`${rule}:`)));
  await page.setViewportSize(NARROW);
  assert.deepEqual(await ownFindings("color-contrast"), []); // its light colours are its own
  await page.emulateMedia({ colorScheme: "dark" });
  await page.locator("html.dark-mode").waitFor();
  assert.deepEqual(await ownFindings(), []);
  await page.getByRole("button", { name: "Authorize" }).click();
  await page.locator("#client_id_authorizationCode").waitFor();
  assert.deepEqual(await ownFindings(), []);
  await context.close();
});
