// The reference client against a real hub and real Weft processes: everything
// that any NATS client can do by the documented wire.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as nats from "@nats-io/transport-node";
import { Fabric, add, eventually, within } from "./fabric.mjs";
import { WeftError } from "./weft.mjs";
import { encode } from "./wire.mjs";

let fabric;
let weft; // a client that is no node
before(async () => {
  fabric = await Fabric.start();
  const servers = [fabric.spawn("serve", "Add", "--exec", add), fabric.spawn("serve", "Echo", "--echo"),
    fabric.spawn("serve", "Fail", "--exec", "echo out of paper >&2; exit 3"), fabric.spawn("serve", "Straße *.>", "--echo")];
  await Promise.all(servers.map((s) => s.line(/^Serving /)));
  weft = await fabric.connect("js");
});
after(() => fabric?.stop());

const long = "x".repeat(200); // a name whose token is a hash

/** raw is a request without the client's own care. */
async function raw(subject, body, headers = {}) {
  const h = nats.headers();
  for (const [k, v] of Object.entries(headers)) h.set(k, v);
  const m = await weft.nc.request(`weft.js.${subject}`, body, { timeout: 5000, headers: h });
  return { code: m.headers?.get("Weft-Error-Code") ?? "", text: m.headers?.get("Weft-Error") ?? "", type: m.headers?.get("Content-Type") ?? "", data: m.data };
}

// asked is ask for a method that was registered a moment ago: the node that
// gets the request may not have heard of it yet.
const asked = (...args) => eventually(`ask ${args[0]}`, () => weft.ask(...args).then((value) => ({ value }), (e) => {
  if (e.code !== "no-server") throw e;
}), 2_000).then((r) => r.value);

const next = async (events) => (await within(10_000, "an event", events.next())).value;

test("ask calls a Go method, in JSON and in msgpack", async () => {
  assert.deepEqual(await asked("Add", { a: 1, b: 2 }), { sum: 3 });
  assert.deepEqual(await asked("Add", { a: 1, b: 2 }, { json: true }), { sum: 3 });
  await asked("Add", { a: 1, b: 2 });
  const { data, type } = await raw("ask.me.Add", '{"a":1,"b":2}', { "Content-Type": "application/json; charset=utf-8" });
  assert.deepEqual([JSON.parse(Buffer.from(data)), type], [{ sum: 3 }, "application/json"]);
});

test("values arrive as they left", async () => {
  const value = { int: 2n ** 53n + 1n, max: 2n ** 64n - 1n, min: -(2n ** 63n), now: 1763715627123, half: 0.5, text: "Zürich\n", list: [null, true, []], bytes: new Uint8Array([1, 2]), at: new Date(1.5e12) };
  assert.deepEqual(await asked("Echo", value), value);
  assert.deepEqual(await weft.call("Echo", value), value);
  assert.equal(await asked("Echo"), undefined, "no value stays none");
  assert.equal(await asked("Echo", null), null);
  assert.deepEqual(await asked("Straße *.>", 1), 1, "a name that needs encoding");
});

test("call finds the server in the directory", async () => {
  assert.deepEqual(await weft.call("Add", { a: 20, b: 22 }), { sum: 42 });
  assert.deepEqual(await weft.call("add", { a: 20, b: 22 }, { json: true }), { sum: 42 }, "whatever the case");
  const [server] = await weft.directory.servers("Add");
  assert.match(server.node, /^cli-/);
  assert.equal(server.identity.application, "weft-serve");
});

test("errors have their codes", async () => {
  await assert.rejects(weft.ask("Nobody"), { code: "no-server" });
  await assert.rejects(weft.call("Nobody"), { code: "no-server" });
  await assert.rejects(asked("Fail"), { code: "app-error", message: /out of paper/ });
  await assert.rejects(weft.call("Fail", {}, { json: true }), { code: "app-error", message: /out of paper/ });
  const [{ node, app }] = await weft.directory.servers("Echo");
  for (const [what, want, subject, body, headers] of [
    ["0xc1", "bad-payload", "ask.js.Echo", new Uint8Array([0xc1])],
    ["bytes after the value", "bad-payload", "ask.js.Echo", new Uint8Array([1, 1])],
    ["a bomb", "bad-payload", "ask.js.Echo", new Uint8Array([0xdf, 0x7f, 0xff, 0xff, 0xff, 0xa1])],
    ["a bomb in a call", "bad-payload", `call.${node}.js.${app}.Echo`, new Uint8Array([0xdf, 0x7f, 0xff, 0xff, 0xff, 0xa1])],
    ["too deep", "bad-payload", "ask.js.Echo", "[".repeat(65) + "]".repeat(65), { "Content-Type": "application/json" }],
    ["not JSON", "bad-payload", "ask.js.Echo", "{", { "Content-Type": "application/json" }],
    ["another type", "bad-payload", "ask.js.Echo", "<a/>", { "Content-Type": "text/xml" }],
    ["a deadline that is no number", "bad-payload", "ask.js.Echo", "", { "Weft-Deadline": "soon" }],
    ["a deadline of a day", "limit", "ask.js.Echo", "", { "Weft-Deadline": "86400000" }],
    ["a token with two spellings", "bad-name", "ask.js.=41dd", ""],
    ["a hash without its name", "bad-name", "ask.js.=hfiwgb7uwv6wjcuouxwjs7w2fxy", ""],
    ["a method that has gone", "no-server", `call.${node}.js.${app}.Gone`, ""],
    ["an app that has gone", "target-gone", `call.${node}.js.abc-1.Echo`, ""],
    ["a bad control message", "bad-payload", `ctl.${node}.js.confirm`, new Uint8Array([0xc1])],
    ["an unknown subscription", "target-gone", `ctl.${node}.js.confirm`, encode({ id: "x", epoch: 1, seq: 1 })],
  ]) {
    const got = await raw(subject, body, headers);
    assert.equal(got.code, want, `${what}: ${got.code}: ${got.text}`);
    assert.ok(got.text.length > 0 && got.data.length === 0, `${what}: a sentence and no body`);
  }
});

test("a call id runs once", async () => {
  const [{ node, app }] = await weft.directory.servers("Echo");
  const headers = { "Weft-Id": "a-call-id-of-22-chars-" };
  assert.equal((await raw(`call.${node}.js.${app}.Echo`, encode(1), headers)).code, "");
  assert.equal((await raw(`call.${node}.js.${app}.Echo`, encode(1), headers)).code, "rejected");
});

test("serves methods that the command line calls", async () => {
  const calc = await fabric.connect("calc-js");
  await calc.join({ application: "calc" });
  let caller;
  await calc.serve({ name: "Twice", accepts: "int n", returns: "int n", description: "from Node.js" }, ({ n }, call) => {
    caller = call;
    return { n: 2 * n };
  });
  await calc.serve({ name: "Angry" }, () => { throw new Error("not today"); });
  await calc.serve({ name: "Closed" }, () => { throw new WeftError("denied", "members only"); });
  let canceled;
  const heard = new Promise((r) => (canceled = r));
  await calc.serve({ name: "Slow" }, (_, { signal }) => new Promise(() => signal.addEventListener("abort", () => canceled(signal.reason))));
  await calc.serve({ name: long }, (args) => args);

  const said = await fabric.run("call", "Twice", '{"n":21}');
  assert.deepEqual([said.code, said.stdout.trim(), said.stderr], [0, '{"n":42}', ""]);
  assert.match(caller.caller, /^cli-/);
  assert.match(caller.app, /^[a-z0-9]+-\d+$/);
  assert.equal(caller.id.length, 22);
  assert.equal((await fabric.run("call", long, "[1]")).stdout.trim(), "[1]", "a hashed name");

  assert.deepEqual(await asked("Twice", { n: 4 }), { n: 8 });
  assert.deepEqual(await asked("Twice", { n: 4 }, { json: true }), { n: 8 });
  await eventually("the other client to see it", async () => (await weft.directory.servers("Twice")).length);
  assert.deepEqual(await weft.call("Twice", { n: 5 }), { n: 10 });
  assert.equal(caller.caller, "js");
  assert.equal(await asked(long, 7), 7);

  for (const [method, code, text] of [["Angry", 1, "app-error: not today\n"], ["Closed", 1, "denied: members only\n"]]) {
    const said = await fabric.run("call", method);
    assert.deepEqual([said.code, said.stderr], [code, text]);
  }
  const late = await fabric.run("call", "Slow", "--timeout", "300ms");
  assert.equal(late.code, 3, late.stderr);
  await within(2000, "the handler to be told", heard);
  await eventually("Slow in the directory", async () => (await weft.directory.servers("Slow")).length);
  await assert.rejects(weft.call("Slow", null, { signal: AbortSignal.timeout(200) }), { code: "canceled" });

  const nodes = (await fabric.run("nodes", "--json")).stdout.trim().split("\n").map((l) => JSON.parse(l));
  const mine = nodes.find((n) => n.id === "calc-js");
  assert.deepEqual([mine.apps, mine.state, mine.version], [["calc"], "ok", "weft.mjs"]);
  const methods = (await fabric.run("methods", "--json")).stdout.trim().split("\n").map((l) => JSON.parse(l));
  const twice = methods.find((m) => m.name === "Twice");
  assert.deepEqual([twice.accepts, twice.description, twice.servers[0].application, twice.servers[0].node], ["int n", "from Node.js", "calc", "calc-js"]);

  const second = await fabric.connect("calc-js");
  await assert.rejects(second.join({ application: "calc" }), { code: "rejected" }, "the id is in use");
  await second.nc.close();

  await calc.close();
  const gone = await fabric.run("call", "Twice", '{"n":21}');
  assert.deepEqual([gone.code, gone.stderr.split(":")[0]], [1, "no-server"]);
});

test("the lease of a client that dies purges it", async () => {
  const brief = await fabric.connect("brief-js");
  await brief.join({ application: "brief" });
  await brief.serve({ name: "Brief" }, () => 1);
  await eventually("it to be seen", () => weft.directory.nodes.get("brief-js")?.doc);
  const began = Date.now();
  clearInterval(brief.beat); // the process is dead
  await brief.nc.close();
  const gone = await fabric.run("call", "Brief");
  assert.deepEqual([gone.code, gone.stderr.split(":")[0]], [1, "target-gone"]);
  await eventually("the lease to lapse", () => !weft.directory.nodes.get("brief-js")?.doc, 15_000);
  console.log(`a dead client left the directory after ${Date.now() - began} ms`);
});

test("watches a stream: snapshot, live, gap, close", async () => {
  const publisher = fabric.spawn("stream", "publish", "Quotes", "--snapshot", "2", "--keep");
  await publisher.line(/^Publishing Quotes/);
  publisher.write('{"n":1}\n{"n":2}\n{"n":3}\n');
  await eventually("the stream", async () => (await weft.directory.servers("Quotes", true)).length);
  const events = await weft.subscribe("Quotes");
  const first = await next(events);
  assert.equal(first.kind, "subscribed");
  // How much is snapshot and how much live depends on when the lines were read.
  let seq = 0;
  while (seq < 3) {
    const e = await next(events);
    assert.equal(e.kind, "data");
    assert.ok(seq === 0 || e.seq === seq + 1, `${e.seq} after ${seq}`);
    assert.deepEqual(e.value, { n: e.seq });
    seq = e.seq;
  }
  const late = await weft.subscribe("Quotes");
  assert.deepEqual(await next(late), { kind: "subscribed", branch: "", seq: 3 });
  assert.deepEqual(await next(late), { kind: "data", seq: 2, value: { n: 2 }, snapshot: true, branch: "" });
  assert.deepEqual(await next(late), { kind: "data", seq: 3, value: { n: 3 }, snapshot: true, branch: "" });
  await late.return();
  await publisher.line(/^- js@js/);

  publisher.write('{"n":4}\n');
  assert.deepEqual(await next(events), { kind: "data", seq: 4, value: { n: 4 }, snapshot: false, branch: "" });

  // After a reconnect it goes on where it was.
  await weft.nc.reconnect();
  publisher.write('{"n":5}\n');
  const fifth = await next(events);
  assert.deepEqual([fifth.kind, fifth.seq, fifth.value], ["data", 5, { n: 5 }]);

  // An item from nowhere, eleven later: five can be had again, the others not.
  const [server] = await weft.directory.servers("Quotes", true);
  let epoch;
  const listener = weft.listen(`weft.js.data.${server.node}.${server.app}.Quotes.=`, (m) => (epoch = m.data.subarray(1, 10)));
  await eventually("the mark of an idle branch", () => epoch);
  listener.unsubscribe();
  weft.nc.publish(`weft.js.data.${server.node}.${server.app}.Quotes.=`, Buffer.concat([Buffer.of(0x93), epoch, Buffer.of(16, 0xc3)]));
  assert.deepEqual(await next(events), { kind: "gap", from: 6, to: 15, reason: "lost", private: false });
  assert.deepEqual(await next(events), { kind: "data", seq: 16, value: true, snapshot: false, branch: "" });

  publisher.kill("SIGTERM");
  assert.equal(await publisher.exit, 0);
  const closed = await next(events);
  assert.equal(closed.kind, "closed");
  assert.equal(closed.code, "target-gone", closed.reason);
  assert.equal(await next(events), undefined);
  await assert.rejects(weft.subscribe("Quotes"), { code: "no-server" });
});

test("watches one branch of a stream", async () => {
  const publisher = fabric.spawn("stream", "publish", "Deals", "--branch", "EUR/USD", "--keep");
  await publisher.line(/^Publishing Deals/);
  await eventually("the stream", async () => (await weft.directory.servers("Deals", true)).length);
  const events = await weft.subscribe("deals", { branch: "EUR/USD" });
  assert.deepEqual(await next(events), { kind: "subscribed", branch: "EUR/USD", seq: 0 });
  publisher.write("1.5\n");
  assert.deepEqual(await next(events), { kind: "data", seq: 1, value: 1.5, snapshot: false, branch: "EUR/USD" });
  await events.return();
  publisher.kill();
  await publisher.exit;
});

test("publishes and subscribes topics", async () => {
  const sub = fabric.spawn("sub", "prices.*.>");
  await sub.line(/^Subscribed/);
  const text = { topic: "prices.eu.Zürich/x", json: '{"bid":1.5}' };
  weft.publish(text.topic, { bid: 1.5 });
  assert.match(await sub.line(/bid/), /^prices\.eu\.Zürich\/x from js@js: \{"bid":1\.5\}$/);
  weft.publish("prices.eu.json", { ask: 2 }, { json: true });
  await sub.line(/^prices\.eu\.json .*\{"ask":2\}/);
  weft.publish(`prices.eu.${long}`, 3);
  await sub.line(new RegExp(`^prices\\.eu\\.${long} .*: 3`));
  sub.kill();

  const all = weft.topic("prices.*.>");
  const one = weft.topic("prices.eu.Zürich/x");
  await weft.nc.flush();
  assert.equal((await fabric.run("pub", text.topic, text.json)).code, 0);
  for (const queue of [all, one]) {
    const m = await next(queue);
    assert.deepEqual([m.topic, m.value], [text.topic, { bid: 1.5 }]);
    assert.match(m.publisher, /^cli-/);
  }
  assert.equal((await fabric.run("pub", `prices.us.${long}`, "1", "--routing-key", "r1")).code, 0);
  const m = await next(all);
  assert.deepEqual([m.topic, m.value, m.routingKey], [`prices.us.${long}`, 1, "r1"]);
  await all.return();
  await one.return();
});

test("what a NATS server was made to write is dropped", async () => {
  const sub = weft.topic("secret");
  await weft.nc.flush();
  const before = weft.dropped;
  const h = nats.headers();
  h.set("Nats-Stream", "KV_weft_js_ctx");
  weft.nc.publish("weft.js.topic.mallory.secret", encode("stolen"), { headers: h });
  weft.nc.publish("weft.js.topic.mallory.secret", new Uint8Array([0xc1]));
  weft.publish("secret", "true");
  assert.equal((await next(sub)).value, "true");
  assert.equal(weft.dropped - before, 2);
  const ask = nats.headers();
  ask.set("Status", "404");
  await assert.rejects(weft.nc.request("weft.js.ask.js.Echo", encode(1), { timeout: 300, headers: ask }), /timeout/i);
  await sub.return();
});
