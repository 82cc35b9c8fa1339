/** Bundles the example's scripts and puts its pages beside them. */
import { build } from "esbuild";
import { cp } from "node:fs/promises";

const SOURCES = new URL("../../", import.meta.url).pathname; // this file runs as build/example/bundle.js

/** Bundle scripts, by the name of the file that each becomes, into `directory`, whose name ends with a slash. */
export async function bundle(directory: string, more: Readonly<Record<string, string>> = {}): Promise<void> {
  const scripts = { "acs-auth": "example/acs-auth.ts", redirect: "example/redirect.ts", ...more };
  const entryPoints = Object.entries(scripts).map(([out, source]) => ({ in: SOURCES + source, out }));
  await build({ entryPoints, outdir: directory, bundle: true, format: "esm", target: "es2022", logLevel: "warning" });
  for (const page of ["index.html", "redirect.html"]) {
    await cp(`${SOURCES}example/${page}`, directory + page);
  }
}
