/** The console: sign in, call the API, see what happened. Everything it knows it asks the service. */
import { byId, element } from "./elements.js";
import { draw, measurements } from "./flow.js";
import { showLocal } from "./local.js";
import { returnedFromSignIn, signIn } from "./sign-in.js";
import { LANGUAGES, OPERATIONS } from "./snippets.js";
import { acsFacts, decoded, timeLeft } from "./tokens.js";

let session; // { accessToken, asked, teamsToken() }: in memory only
let shown = OPERATIONS[1];
let language = "curl";
let ticking;

const say = (text) => (byId("status").textContent = text);
const start = await (await fetch("/console/start.json")).json();

byId("sign-in").onclick = () => signIn(start.signIn).catch((error) => say(error.message));
if (!start.signIn?.clientId) {
  byId("sign-in").disabled = true;
  say(start.signIn ? "Set DOCS_CLIENT_ID to the client that signs users in here." : "The issuer can't be reached yet: reload in a moment.");
}
showOperations();
showTabs();
if (start.signIn) {
  try {
    const returned = await returnedFromSignIn(start.signIn);
    if (returned !== undefined) {
      await begin(returned);
    }
  } catch (error) {
    say(`Not signed in: ${error.message}`);
  }
  await showLocal(start.signIn, begin);
}

async function begin(given) {
  session = { ...given, asked: { name: "token", ...given.asked } };
  const claims = decoded(session.accessToken)?.claims ?? {};
  say(`Signed in as ${claims.name ?? claims.preferred_username ?? claims.upn ?? "a user"}.`);
  byId("sign-in").textContent = "Sign in again";
  byId("acs").hidden = byId("flow-section").hidden = true;
  byId("answer").hidden = true;
  byId("answer-status").textContent = "Nothing has been called yet.";
  byId("calls").hidden = byId("token").hidden = false;
  byId("decoded").textContent = JSON.stringify(decoded(session.accessToken) ?? "It can't be read.", null, 2);
  await explain();
}

/** Let the service judge the token; this page has no rules of its own. */
async function explain() {
  const rows = byId("claims").tBodies[0];
  rows.replaceChildren();
  byId("claims").hidden = !start.explains;
  if (!start.explains) {
    byId("verdict").textContent = "In production the service does not explain tokens here: acs-auth explain-token does.";
    return;
  }
  const response = await fetch("/console/explanation", { method: "POST", headers: authorization() });
  const { accepted, reason, judged } = await response.json();
  byId("verdict").className = accepted ? "ok" : "refused";
  byId("verdict").textContent = accepted
    ? "The service accepts this token."
    : reason
      ? `The service refuses this token. Reason: ${reason}.`
      : "The service can't tell: the issuer's keys can't be fetched.";
  for (const { member, found, expected, verdict, remedy } of judged) {
    rows.append(
      element(
        "tr",
        {},
        element("th", { scope: "row" }, member),
        labelled("In the token", found),
        labelled("Expected", expected, ...(remedy ? [element("span", { className: "remedy" }, `→ ${remedy}`)] : [])),
        element("td", { className: `verdict ${verdict}` }, { ok: "✓ good", refused: "✗ refused", unknown: "? unknown" }[verdict]),
      ),
    );
  }
}

function labelled(label, ...children) {
  const cell = element("td", {}, ...children);
  cell.dataset.label = label;
  return cell;
}

function showOperations() {
  const offered = OPERATIONS.filter(({ method, path }) => start.operations.includes(`${method} ${path}`));
  byId("operations").replaceChildren(
    ...offered.map((operation) => {
      const button = element("button", { type: "button" }, operation.name);
      button.onclick = () => call(operation);
      button.onfocus = () => show(operation);
      button.dataset.operation = operation.name;
      return button;
    }),
  );
}

function show(operation) {
  shown = operation;
  for (const button of byId("operations").children) {
    button.ariaCurrent = String(button.dataset.operation === shown.name);
  }
  byId("snippet").textContent = LANGUAGES[language](shown, location.origin, start.signIn?.scopes[0] ?? "<scope>");
}

/** Tabs by the ARIA practice: arrow keys move, one is in the tab order. */
function showTabs() {
  const names = Object.keys(LANGUAGES);
  const select = (name) => {
    language = name;
    for (const tab of byId("tabs").children) {
      const selected = tab.textContent === name;
      tab.ariaSelected = String(selected);
      tab.tabIndex = selected ? 0 : -1;
    }
    show(shown);
  };
  byId("tabs").replaceChildren(
    ...names.map((name, at) => {
      const tab = element("button", { type: "button", role: "tab", id: `tab-${at}` }, name);
      tab.setAttribute("aria-controls", "snippet");
      tab.onclick = () => select(name);
      tab.onkeydown = ({ key }) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
        if (step !== undefined) {
          const next = names[(at + step + names.length) % names.length];
          select(next);
          [...byId("tabs").children].find((each) => each.textContent === next).focus();
        }
      };
      return tab;
    }),
  );
  select(language);
}

function authorization() {
  return { Authorization: `Bearer ${session.accessToken}` };
}

async function call(operation) {
  show(operation);
  if (operation.asks && !confirm(operation.asks)) {
    return;
  }
  try {
    const headers = authorization();
    if (operation.teams) {
      headers["teams-user-aad-token"] = await session.teamsToken();
    }
    const started = performance.now();
    const response = await fetch(operation.path, { method: operation.method, headers });
    const text = await response.text();
    showAnswer(operation, response, text, performance.now() - started);
  } catch (error) {
    byId("answer-status").className = "refused";
    byId("answer-status").textContent = `No answer: ${error.message}`;
  }
}

function showAnswer({ method, path, name }, response, text, milliseconds) {
  const body = text === "" ? undefined : JSON.parse(text);
  const retryAfter = response.headers.get("Retry-After");
  byId("answer-status").className = response.ok ? "ok" : "refused";
  byId("answer-status").textContent =
    `${method} ${path} → ${response.status}${body?.error ? ` ${body.error}` : ""}` + (retryAfter ? `, come back in ${retryAfter} s` : "");
  byId("answer").hidden = body === undefined;
  byId("answer").textContent = JSON.stringify(body, null, 2);
  const sent = { name: `${method} ${path}`, status: response.status, milliseconds, failed: !response.ok };
  const told = draw(byId("flow"), session.asked, { ...sent, calls: measurements(response.headers.get("Server-Timing")) });
  delete session.asked; // later requests find the token in memory
  byId("flow-section").hidden = false;
  byId("flow-note").textContent = told ? "" : "The service shows what it asked of others only in development.";
  if (body?.token) {
    showAcsToken(body.token);
  } else if (method === "DELETE" && response.ok) {
    byId("acs").hidden = true;
  }
}

function showAcsToken(token) {
  const { facts, expires, issued } = acsFacts(token);
  const left = element("dd", { id: "acs-time-left" });
  byId("acs-facts").replaceChildren(
    ...facts.flatMap(([name, words]) => [element("dt", {}, name), element("dd", {}, words)]),
    element("dt", {}, "Time left"),
    left,
  );
  const bar = Object.assign(byId("acs-left"), { max: Math.max(1, expires - issued) });
  const tick = () => {
    left.textContent = timeLeft(expires - Date.now());
    bar.value = Math.max(0, expires - Date.now());
  };
  tick();
  clearInterval(ticking);
  ticking = setInterval(tick, 1000);
  byId("acs").hidden = false;
}
