// Starts the two gateways, each in a process of its own: {url, stop}.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { within } from "../fabric.mjs";

/** startReference runs the reference gateway. */
export function startReference() {
  return start("the reference gateway", process.execPath, [fileURLToPath(new URL("reference.mjs", import.meta.url))], process.env, () => {});
}

/** startWeft builds Weft and runs one node of it, which has a store of its own. */
export async function startWeft() {
  const dir = mkdtempSync(join(tmpdir(), "weft-differential-"));
  const remove = () => rmSync(dir, { recursive: true, force: true });
  try {
    const binary = join(dir, "weft");
    const root = fileURLToPath(new URL("../../..", import.meta.url));
    execFileSync("go", ["build", "-o", binary, "./cmd/weft"], { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
    const env = { ...process.env, XDG_DATA_HOME: join(dir, "data"), WEFT_REALM: "differential" };
    for (const name of Object.keys(env)) if (name.startsWith("NATS_")) delete env[name];
    const args = ["up", "--json", "--node", "n1", "--nats-listen", "off", "--gateway-listen", "127.0.0.1:0"];
    return await start("weft up", binary, args, env, remove);
  } catch (e) {
    remove();
    throw e;
  }
}

// start runs a program and waits until it says its gateway's address.
async function start(what, command, args, env, remove) {
  const child = spawn(command, args, { env, stdio: ["pipe", "pipe", "pipe"] });
  const exit = new Promise((resolve) => child.once("exit", resolve));
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (said += text));
  const stop = async () => {
    child.kill("SIGKILL");
    await exit;
    remove();
  };
  const address = new Promise((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const url = addressIn(line);
      if (url) resolve(url);
    });
  });
  const early = exit.then((code) => Promise.reject(new Error(`${what} ended with ${code}: ${said}`)));
  early.catch(() => {});
  try {
    return { url: await within(20_000, `${what} to say where its gateway is`, Promise.race([address, early])), stop };
  } catch (e) {
    await stop();
    throw e;
  }
}

function addressIn(line) {
  try {
    return JSON.parse(line).gateway;
  } catch {
    return undefined;
  }
}
