// A fabric of real processes for tests: builds the weft program once, runs a
// hub with a store of its own, and starts and ends commands.
import { execFile, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { connect } from "./weft.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** add is a command for weft serve --exec: {"a":1,"b":2} gives {"sum":3}. */
export const add = String.raw`sed 's/.*"a":\([0-9]*\).*"b":\([0-9]*\).*/\1 \2/' | { read a b; echo "{\"sum\":$((a + b))}"; }`;

let programs; // the directory of what this process has built

/** build builds a program of this repository, once. */
export function build(path) {
  if (!programs) {
    programs = mkdtempSync(join(tmpdir(), "weft-programs-"));
    process.on("exit", () => rmSync(programs, { recursive: true, force: true }));
  }
  const program = join(programs, basename(path));
  if (!existsSync(program)) execFileSync("go", ["build", "-o", program, path], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  return program;
}

export class Fabric {
  #children = new Set();
  #clients = new Set();

  /** start is a fabric with a hub. */
  static async start(realm = "js") {
    const f = Fabric.empty(realm);
    await f.#hub().catch(async (e) => {
      await f.stop();
      throw e;
    });
    return f;
  }

  /** empty is a fabric in which nothing runs yet. */
  static empty(realm = "js") {
    const f = new Fabric();
    f.dir = mkdtempSync(join(tmpdir(), "weft-clients-"));
    f.binary = build("./cmd/weft");
    f.env = { ...process.env, XDG_DATA_HOME: join(f.dir, "data"), WEFT_REALM: realm };
    for (const name of Object.keys(f.env)) if (name.startsWith("NATS_")) delete f.env[name];
    return f;
  }

  async #hub() {
    const hub = await this.up("hub", "--nats-listen", "127.0.0.1:0", "--gateway-listen", "off");
    this.url = hub.said.nats;
    this.access = JSON.parse((await this.run("env", "--json")).stdout);
  }

  /** up starts a node and waits until it is online; said is what it says then. */
  async up(id, ...args) {
    const node = this.spawn("up", "--json", "--node", id, ...args);
    node.said = JSON.parse(await node.line(/"online":true/));
    return node;
  }

  /** connect is a client of its own. */
  async connect(name) {
    const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass, WEFT_REALM: realm } = this.access;
    const weft = await connect({ servers, user, pass, realm, name });
    this.#clients.add(weft);
    return weft;
  }

  /** run runs a command to its end: {code, stdout, stderr}. */
  run(...args) {
    return new Promise((resolve) => {
      execFile(this.binary, args, { env: this.env, timeout: 30_000 }, (err, stdout, stderr) => resolve({ code: err ? err.code ?? err.signal : 0, stdout, stderr }));
    });
  }

  /** spawn starts a command that goes on; line waits for a line of its output. */
  spawn(...args) {
    return this.#spawn(this.binary, args, this.env);
  }

  /** program starts another program in the same way. */
  program(binary, ...args) {
    return this.#spawn(binary, args, this.env);
  }

  /** peer starts the Go program in the folder peer. */
  peer(...args) {
    return this.#spawn(build("./test/clients/peer"), args, { ...this.env, ...this.access });
  }

  #spawn(binary, args, env) {
    const child = spawn(binary, args, { env, detached: true });
    const waiting = new Set();
    let lines = [];
    let partial = { stdout: "", stderr: "" };
    const exit = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
    const serve = () => {
      for (const w of waiting) {
        const i = lines.findIndex((l) => w.pattern.test(l));
        if (i < 0) continue;
        const [line] = lines.splice(i, 1);
        waiting.delete(w);
        w.resolve(line);
      }
    };
    for (const name of ["stdout", "stderr"]) {
      child[name].setEncoding("utf8").on("data", (text) => {
        const parts = (partial[name] + text).split("\n");
        partial[name] = parts.pop();
        lines.push(...parts);
        serve();
      });
    }
    const line = (pattern, ms = 10_000) => within(ms, `${args.join(" ")} to say ${pattern}, it said ${JSON.stringify(lines)}`, new Promise((resolve) => {
      waiting.add({ pattern, resolve });
      serve();
    }));
    const handle = { child, line, exit, write: (text) => child.stdin.write(text), kill: (signal = "SIGTERM") => child.exitCode === null && child.signalCode === null && process.kill(-child.pid, signal) };
    this.#children.add(handle);
    return handle;
  }

  /** stop ends everything that was started, and waits. */
  async stop() {
    for (const c of this.#clients) await c.close().catch(() => {});
    for (const c of [...this.#children].reverse()) {
      c.kill("SIGKILL");
      await c.exit;
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** within is a promise that may not take longer; what may be a function. */
export function within(ms, what, promise) {
  let timer;
  const text = () => `waited ${ms} ms for ${typeof what === "function" ? what() : what}`;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(text())), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** eventually tries f until it gives something true. */
export async function eventually(what, f, ms = 10_000) {
  const end = Date.now() + ms;
  for (;;) {
    const got = await f();
    if (got) return got;
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await new Promise((r) => setTimeout(r, 20));
  }
}
