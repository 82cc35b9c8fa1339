/** Draws what one request caused, from the service's own measurements (the header `Server-Timing`). */
import { element } from "./elements.js";

const NODES = { entra: "Entra ID", managed_identity: "Entra ID", store: "Store", acs: "ACS" };
const QUIET = { entra: "its keys are in memory", store: "not asked", acs: "not asked" };

/** The entries of `Server-Timing`; empty when there is no such header. */
export function measurements(header) {
  return (header ?? "")
    .split(", ")
    .filter(Boolean)
    .map((entry) => {
      const [upstream, ...parameters] = entry.split(";");
      const given = Object.fromEntries(parameters.map((each) => each.replaceAll('"', "").split("=", 2)));
      return { upstream, operation: given.desc, milliseconds: Number(given.dur), ...given };
    });
}

/** `asked` is how the sign-in answered; `sent` is the request: name, status, milliseconds, calls. */
export function draw(list, asked, sent) {
  const told = sent.calls.length > 0;
  list.replaceChildren(
    arrow("Browser", "Entra ID", asked ? [asked] : [], "token in memory"),
    arrow("Browser", "Service", [sent], ""),
  );
  for (const upstream of told ? ["entra", "store", "acs"] : []) {
    const calls = sent.calls.filter((call) => (call.upstream === "managed_identity" ? "entra" : call.upstream) === upstream);
    list.append(arrow("Service", NODES[upstream], calls.map(upstreamCall), QUIET[upstream]));
  }
  return told;
}

function upstreamCall(call) {
  const failed = call.outcome !== "ok";
  return { name: call.operation, status: call.status ?? call.outcome, milliseconds: call.milliseconds, retries: Number(call.retries), failed };
}

function arrow(from, to, calls, quiet) {
  const failed = calls.some((call) => call.failed);
  const words = calls.map(({ name, status, milliseconds, retries }) => {
    const repeated = retries > 0 ? `, ${retries} ${retries === 1 ? "retry" : "retries"}` : "";
    return element("span", {}, `${name}: ${status}, ${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms${repeated}`);
  });
  return element(
    "li",
    { className: failed ? "failed" : calls.length > 0 ? "lit" : "" },
    element("span", { className: "node" }, from),
    element("span", { className: "arrow" }, ...(words.length > 0 ? words : [quiet])),
    element("span", { className: "node" }, to),
  );
}
