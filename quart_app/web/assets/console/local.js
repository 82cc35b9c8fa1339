/** The panel for the local stand-ins. It appears where the sign-in is on this machine and answers as they do. */
import { byId, element } from "./elements.js";

/** Show the panel if there are stand-ins; `onSession` is given the session of a user who was switched to. */
export async function showLocal(where, onSession) {
  const { origin, hostname } = new URL(where.token);
  if (hostname !== "localhost" && hostname !== "127.0.0.1") {
    return;
  }
  const call = async (method, path, body) => {
    const given = body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const response = await fetch(`${origin}/local/console${path}`, { method, ...given });
    if (!response.ok) {
      throw new Error(`The stand-in answered ${response.status}.`);
    }
    return response.status === 204 ? undefined : response.json();
  };
  let told;
  try {
    told = await call("GET", "");
  } catch {
    return; // not a stand-in, or the browser does not trust it yet: that comes with the sign-in
  }
  const say = (text) => (byId("local-status").textContent = text);
  const guarded = (action) => () => action().catch((error) => say(error.message));
  byId("local").hidden = false;
  byId("users").replaceChildren(...told.users.map(({ alias, name }) => element("option", { value: alias }, name)));
  byId("switch").onclick = guarded(async () => {
    const user = byId("users").value;
    const started = performance.now();
    const { access_token: accessToken } = await call("POST", "/token", { user });
    onSession({
      accessToken,
      asked: { name: "token", status: 200, milliseconds: performance.now() - started },
      teamsToken: async () => (await call("POST", "/token", { user, teams: true })).access_token,
    });
    say("");
  });
  byId("rotate").onclick = guarded(async () => {
    await call("POST", "/keys/rotate");
    say("Entra ID signs with a new key from now on. Switch the user or sign in to get a token signed by it.");
  });
  byId("faults").replaceChildren(
    ...told.faults.map(({ name, text, on }) => {
      const box = element("input", { type: "checkbox", id: `fault-${name}`, checked: on });
      box.onchange = guarded(async () => {
        await call("PUT", `/faults/${name}`, { on: box.checked });
        say(box.checked ? "The fault is on: call something and see what the client gets." : "The fault is off.");
      });
      return element("div", { className: "switch" }, box, element("label", { htmlFor: box.id }, text));
    }),
  );
}
