/** The stand-ins for Azure and the real service, as processes in faked time. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { Agent, request } from "node:https";
import type { FakedTime } from "./faked-time.js";

const PATIENCE = 30_000;
/** The service's line for a path that it does not have. */
const MARK = "GET (none) 404";

/** Which Python has the service's packages. */
const PYTHON = process.env["SERVICE_PYTHON"] ?? "python3";


export interface LocalAzure {
  readonly entra: string;
  readonly acs: string;
  readonly directory: string;
  readonly time: FakedTime;
  readonly environment: Record<string, string>;
  stop(): Promise<void>;
}

export interface Service {
  readonly url: string;
  /** The requests that the service has served up to now, from its own log: `GET /api/token 201`. */
  served(): Promise<string[]>;
  /** When it served them, in milliseconds since the epoch of the faked time. */
  servedAt(): Promise<number[]>;
  stop(): Promise<void>;
}

/** Start the stand-ins with their state in `directory`. */
export async function startLocalAzure(directory: string, time: FakedTime): Promise<LocalAzure> {
  const [entra, graph, acs, cosmos] = await freePorts(4);
  const ports = { "--entra-port": entra, "--graph-port": graph, "--acs-port": acs, "--cosmos-port": cosmos };
  const options = Object.entries(ports).flatMap(([name, port]) => [name, String(port)]);
  const environment: Record<string, string> = {};
  const process = start(["local_azure.cli", "run", "--no-service", "--state-dir", directory, ...options], directory, time, {});
  await lineOf(process.stdout, "Press Ctrl-C to stop.", (line) => {
    const setting = /^\s*export (\w+)=(.*)$/.exec(line);
    if (setting?.[1] !== undefined && setting[2] !== undefined) {
      environment[setting[1]] = setting[2].replace(/^'(.*)'$/, "$1");
    }
  });
  return {
    entra: `https://localhost:${entra}`,
    acs: `https://localhost:${acs}`,
    directory,
    time,
    environment,
    stop: () => end(process),
  };
}

/** Start the service against the stand-ins. */
export async function startService(azure: LocalAzure, settings: Record<string, string>): Promise<Service> {
  const [port] = await freePorts(1);
  const log: { readonly request: string; readonly at: number }[] = [];
  const process = start(["quart_app.cli", "serve"], azure.directory, azure.time, {
    ...azure.environment,
    ENVIRONMENT: "production", // its log is JSON
    HOST: "127.0.0.1",
    PORT: String(port),
    STORAGE_BACKEND: "sqlite",
    SQLITE_PATH: `${azure.directory}/mappings.sqlite`,
    RATE_LIMIT_REQUESTS_PER_MINUTE: "0", // its minutes are monotonic: they don't pass in faked time
    ...settings,
  });
  await lineOf(process.stderr, "Running on", (line) => {
    const entry = line.startsWith("{") ? (JSON.parse(line) as Record<string, unknown>) : {};
    if (entry["event"] === "request" && entry["method"] !== "OPTIONS") {
      const request = ["method", "route", "status"].map((name) => String(entry[name])).join(" ");
      log.push({ request, at: Date.parse(String(entry["timestamp"])) });
    }
  });
  const url = `http://localhost:${port}`;
  let marks = 0;
  const complete = async (): Promise<typeof log> => {
    marks += 1;
    await fetch(`${url}/mark`); // its line comes after those of all that was answered before
    await eventually(() => log.filter(({ request }) => request === MARK).length === marks);
    return log.filter(({ request }) => request !== MARK);
  };
  return {
    url,
    served: async () => (await complete()).map(({ request }) => request),
    servedAt: async () => (await complete()).map(({ at }) => at),
    stop: () => end(process),
  };
}

/** Wait, in real time, until `condition` holds. */
export async function eventually(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + PATIENCE; !(await condition()); ) {
    if (Date.now() > deadline) {
      throw new Error(`It did not happen within ${PATIENCE / 1000} seconds: ${String(condition)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Call one of a stand-in's control routes; the answer's JSON, if there is one. */
export async function control(url: string, method: string, path: string, body?: unknown): Promise<unknown> {
  const sent = request(`${url}${path}`, {
    method,
    headers: { "Content-Type": "application/json" },
    agent: new Agent({ rejectUnauthorized: false }), // a stand-in on loopback, with a certificate of its own authority
  });
  sent.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = (await once(sent, "response")) as [import("node:http").IncomingMessage];
  let text = "";
  for await (const chunk of response) {
    text += String(chunk);
  }
  if ((response.statusCode ?? 500) >= 400) {
    throw new Error(`${method} ${path}: ${response.statusCode} ${text}`);
  }
  return text === "" ? undefined : (JSON.parse(text) as unknown);
}

/** Away from the checkout and this shell, whose settings describe another service. */
function start(module: string[], cwd: string, time: FakedTime, settings: Record<string, string>): ChildProcess {
  const environment = { PATH: process.env["PATH"] ?? "", ...time.environment(), ...settings };
  return spawn(PYTHON, ["-m", ...module], { cwd, env: environment, stdio: ["ignore", "pipe", "pipe"] });
}

/** Wait for a line that holds `text`; `read` gets every line, also the later ones. */
async function lineOf(stream: ChildProcess["stdout"], text: string, read: (line: string) => void): Promise<void> {
  if (stream === null) {
    throw new Error("The process has no output.");
  }
  const lines: string[] = [];
  const found = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Not within half a minute: ${text}`)), PATIENCE);
    createInterface({ input: stream })
      .on("line", (line) => {
        lines.push(line);
        read(line);
        if (line.includes(text)) {
          clearTimeout(timer);
          resolve();
        }
      })
      .on("close", () => {
        clearTimeout(timer);
        reject(new Error(`It ended before it said "${text}":\n${lines.join("\n")}`));
      });
  });
  await found;
}

async function end(process: ChildProcess): Promise<void> {
  if (process.exitCode === null && process.signalCode === null) {
    process.kill("SIGTERM");
    await once(process, "exit");
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as import("node:net").AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}
