/** What the browser complains of: errors, and what the content security policy forbids. */
import type { Page } from "playwright-core";

/** Grows as the page complains, from now on. A failed request is none: some tests want one. */
export function complaintsOf(page: Page): readonly string[] {
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      complaints.push(message.text());
    }
  });
  return complaints;
}
