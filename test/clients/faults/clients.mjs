// Many apps on the published client libraries, for the Go tests of test/faults: each
// line of the input is a request, each line of the output an answer to one, or what
// a subscription was called with.
import { createInterface } from "node:readline";
import { App, library } from "../gateway/apps.mjs";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const apps = new Map();

// Apps whose libraries are away from the gateway. A write then makes @glue42/core forget
// to subscribe again to that context, so an app must not: it is refused here.
const away = new Set();

// A library reports what it cannot do while its gateway is away also to nobody.
process.on("unhandledRejection", (e) => console.error("unhandled:", e?.message ?? e));

/** limited is what a promise gives, or an error of code timeout: a library can wait for ever for a gateway that is gone. */
const limited = (ms, promise) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(Object.assign(new Error(`no answer within ${ms} ms`), { code: "timeout" })), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const requests = {
  async connect({ App: i, URL: url, Name: application, Library: name }) {
    const gateway = { url, auth: { username: application, password: "any" } };
    const app = await App.join(library(name), gateway, { application, gateway: { ws: url, reconnectInterval: 200, reconnectAttempts: 100_000 } });
    app.io.connection.disconnected(() => away.add(i));
    app.io.connection.onLibReAnnounced((lib) => lib.name === "contexts" && away.delete(i));
    apps.set(i, app);
    away.delete(i);
  },

  async watch({ App: i, Context: name }) {
    await apps.get(i).io.contexts.subscribe(name, (data) => say({ Event: { App: i, Context: name, Value: data } }));
  },

  async write({ App: i, Context: name, Kind: kind, Edits: edits }) {
    if (away.has(i)) throw Object.assign(new Error("the library is away from the gateway"), { code: "offline" });
    const { contexts } = apps.get(i).io;
    if (kind === "set") await contexts.set(name, edits[0].Value);
    else if (kind === "update") await contexts.update(name, Object.fromEntries(edits.map((e) => [e.Path[0], e.Value ?? null])));
    else await contexts.setPaths(name, edits.map((e) => ({ path: e.Path.join("."), value: e.Value ?? null })));
    return { Ack: {} };
  },
};

const input = createInterface({ input: process.stdin });
input.on("line", async (line) => {
  const request = JSON.parse(line);
  try {
    say({ ID: request.ID, ...(await limited(request.Timeout ? request.Timeout / 1e6 : 20_000, requests[request.Do](request))) });
  } catch (e) {
    say({ ID: request.ID, Code: e?.code === "timeout" || e?.code === "offline" ? e.code : "", Error: String(e?.message ?? JSON.stringify(e) ?? e) });
  }
});
input.on("close", () => process.exit(0));
say({ Ready: {} });
