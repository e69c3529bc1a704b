// The reference client of contexts against a real hub and real Weft processes.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as nats from "@nats-io/transport-node";
import { Context, canonical } from "./context.mjs";
import { Fabric, eventually, within } from "./fabric.mjs";
import { decode, encode } from "./wire.mjs";

let fabric;
let nc; // with nothing of Weft
before(async () => {
  fabric = await Fabric.start();
  nc = await dial();
});
after(async () => {
  await nc?.close();
  await fabric?.stop();
});

const dial = () => nats.connect({ servers: fabric.access.NATS_URL, user: fabric.access.NATS_USER, pass: fabric.access.NATS_PASSWORD, maxReconnectAttempts: -1 });

/** open is a context of its own for one test. */
const open = (name, options = {}) => new Context(options.nc ?? nc, { realm: "js", name, ...options });

/** weft runs a command that must succeed, and gives what it prints. */
async function weft(...args) {
  const { code, stdout, stderr } = await fabric.run("context", ...args);
  assert.equal(code, 0, `weft context ${args.join(" ")}: ${stderr}`);
  return stdout.trim();
}

/** watch is a node whose app watches; next is its next event. */
async function watch(name) {
  const w = fabric.spawn("context", "watch", name, "--json");
  const next = async () => JSON.parse(await w.line(/^\{"event"/));
  return { ...w, next, first: await next(), end: () => (w.kill(), w.exit) };
}

/** step is what counts of an event of weft context watch. */
const step = ({ event, exists, revision, by, changes }) => ({ event, exists, revision, by, changes });

const next = async (events, what = "an event") => (await within(10_000, what, events.next())).value;

/** agree is that the command line, a new reader and a follower have the same. */
async function agree(context, followed) {
  const printed = await weft("get", context.name);
  const { exists, object } = await context.read();
  assert.ok(exists);
  assert.equal(canonical(object), printed);
  if (followed) assert.equal(canonical(followed), printed);
  return object;
}

for (const name of ["client", "T42.Demo ü/*", "n".repeat(200)]) {
  test(`reads and follows what nodes write: ${name.slice(0, 12)}`, async () => {
    const context = open(name);
    assert.deepEqual(await context.read(), { exists: false, object: undefined, revision: 0, keys: 0 });
    const events = context.follow();
    assert.deepEqual(await next(events), { kind: "snapshot", exists: false, object: undefined, revision: 0, by: "", keys: 0 });
    const value = { name: "ACME", "a.b": { "": [1, { x: null }] }, big: 2n ** 64n - 1n, low: -(2n ** 63n), half: 0.5, text: "Zürich 𝄞\n", list: [] };
    await weft("set", name, canonical(value));
    let e = await next(events);
    assert.deepEqual([e.kind, e.exists, e.object], ["created", true, value]);
    assert.match(e.by, /^[a-z0-9]+-\d+@cli-/);
    await agree(context, e.object);

    await weft("update", name, '{"limit":7,"half":null,"name":"BMW"}');
    e = await next(events);
    const { half, ...rest } = value;
    assert.deepEqual([e.kind, e.object], ["changed", { ...rest, name: "BMW", limit: 7 }], "three keys, one event");
    await agree(context, e.object);

    for (const [path, json] of [['["a.b","new","deep"]', '"v"'], ["limit.max", "{}"], ["limit", "9"], ['["é",""]', "[[]]"]]) {
      await weft("path", name, path, json);
      e = await next(events);
      assert.equal(e.kind, "changed");
      await agree(context, e.object);
    }
    assert.deepEqual(e.object, { ...rest, name: "BMW", limit: 9, "a.b": { "": [1, { x: null }], new: { deep: "v" } }, é: { "": [[]] } });

    await weft("rm", name, '["a.b"]');
    e = await next(events);
    assert.equal(e.object["a.b"], undefined);
    await agree(context, e.object);
    const { revision } = JSON.parse(await weft("get", name, "--json"));
    assert.deepEqual([e.revision, (await context.read()).revision], [revision, revision]);

    await weft("destroy", name);
    e = await next(events);
    assert.deepEqual([e.kind, e.exists, e.object], ["destroyed", false, undefined]);
    assert.equal((await context.read()).exists, false);
    assert.equal(events.foreign, 0);
    await events.return();
  });
}

test("nodes see what a foreign writer writes, and nothing else", async () => {
  const context = open("foreign");
  const watches = [await watch("foreign"), await watch("foreign")]; // two nodes
  for (const w of watches) assert.deepEqual([w.first.event, w.first.exists], ["snapshot", false]);
  const both = async (what) => {
    const [a, b] = await Promise.all(watches.map((w) => w.next()));
    assert.deepEqual(step(a), step(b));
    assert.equal(canonical((await context.read()).object), (await fabric.run("context", "get", "foreign")).stdout.trim() || undefined, what);
    return step(a);
  };
  const saw = async (what, revision, changes, { event = "changed", exists = true, by = null } = {}) => assert.deepEqual(await both(what), { event, exists, revision, by, changes }, what);

  await saw("a root put", await context.put([], { a: 1, b: { c: [1] } }), [{ path: [], value: { a: 1, b: { c: [1] } } }], { event: "created" });
  await saw("a put of a property", await context.put(["limit"], 7), [{ path: ["limit"], value: 7 }]);
  await saw("a put at a path", await context.put(["b", "T42.Demo"], { x: null }), [{ path: ["b", "T42.Demo"], value: { x: null } }]);
  await saw("a batch", await context.update([[["limit"], 8], [["a"], undefined], [["b", "c"], "x"]]), [{ path: ["a"], removed: true }, { path: ["b", "c"], value: "x" }, { path: ["limit"], value: 8 }]);
  await saw("a delete", await context.delete(["limit"]), [{ path: ["limit"], removed: true }]);
  await saw("a purge", await context.purge(["b", "c"]), [{ path: ["b", "c"], removed: true }]);
  await saw("the root again", await context.put([], { d: 1 }), [{ path: ["b"], removed: true }, { path: ["d"], value: 1 }]);

  const by = { app: "js-1", node: "laptop" };
  await saw("somebody who says who it is", await context.put(["e"], 1, { by: "js-1@laptop" }), [{ path: ["e"], value: 1 }], { by });
  await saw("as a node does", await context.put(["e"], { f: 1.5 }, { by: "js-1@laptop", node: true }), [{ path: ["e"], value: { f: 1.5 } }], { by });
  await saw("a batch as a node does", await context.update([[["e", "f"], 2], [["g"], [1]]], { by: "js-1@laptop", node: true }), [{ path: ["e", "f"], value: 2 }, { path: ["g"], value: [1] }], { by });
  await saw("a node by itself", await context.delete(["g"], { by: "@laptop", node: true }), [{ path: ["g"], removed: true }], { by: { node: "laptop" } });
  await saw("a name that cannot be", await context.put(["h"], 1, { by: "Excel" }), [{ path: ["h"], value: 1 }]);
  await saw("as the tool of NATS does", await context.put(["i"], "text"), [{ path: ["i"], value: "text" }]);

  await context.purge([]);
  await saw("a purge of the root", 0, [{ path: [], removed: true }], { event: "destroyed", exists: false });
  await context.put(["lost"], 1); // below a root that is not there
  await saw("the root after that", await context.put([], {}), [{ path: [], value: {} }], { event: "created" });
  await context.delete([]);
  await saw("a delete of the root", 0, [{ path: [], removed: true }], { event: "destroyed", exists: false });
  for (const w of watches) await w.end();
});

test("a context that a foreign writer made has its name", async () => {
  const names = ["a. b", "ls".repeat(100)];
  for (const name of names) await open(name).put([], {});
  const listed = (await weft("ls", "--json")).split("\n").map((l) => JSON.parse(l).name);
  for (const name of names) assert.ok(listed.includes(name), name);
});

test("what cannot be read counts as absent everywhere", async () => {
  const context = open("unreadable");
  const put = (key, text, headers = {}) => {
    const h = nats.headers();
    for (const [k, v] of Object.entries(headers)) h.set(k, v);
    return nc.request(`$KV.weft_js_ctx.unreadable.${key}`, text, { headers: h }).then((m) => decode(m.data, true).seq);
  };
  await context.put([], { a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, keep: 1 });
  const events = context.follow();
  await next(events);
  const before = await watch("unreadable"); // one that is there, and below one that comes later
  const seqs = [
    await put("a", "nope"), await put("b", ""), await put("c", new Uint8Array([0xc1]), { "Weft-Op": "x" }), await put("d", "<d/>", { "Content-Type": "text/xml" }),
    await put("e", "[".repeat(64) + "]".repeat(64)), await put("f", "1e400"), await put("g", "1", { "Weft-As-Of": "soon" }),
    await put("h.i", "{"), await put("j", new Uint8Array([1]), { "Content-Type": "application/msgpack" }), await put("k", "2", { "Weft-Op": "x", "Content-Type": "application/json" }),
  ];
  const want = { keep: 1, h: {}, j: 1, k: 2 };
  let e = { object: undefined };
  while (e.revision !== seqs.at(-1)) e = await next(events);
  assert.deepEqual(e.object, want);
  assert.deepEqual(await agree(context, e.object), want);
  let line = before.first;
  while (line.revision !== seqs.at(-1)) line = await before.next();
  const later = await watch("unreadable");
  assert.deepEqual([later.first.value, later.first.revision], [want, seqs.at(-1)]);

  for (const [what, text] of [["not JSON", "nope"], ["an array", "[1]"], ["null", "null"], ["nothing", ""]]) {
    const revision = await put("/", text);
    e = await next(events);
    assert.deepEqual([e.kind, e.exists, e.object, e.revision], ["changed", true, {}, revision], what);
    assert.deepEqual(await agree(context, e.object), {}, what);
    assert.deepEqual((await later.next()).changes.every((c) => c.removed), true, what);
    await context.put(["again"], 1);
    assert.deepEqual((await next(events)).object, { again: 1 });
    assert.deepEqual((await later.next()).changes, [{ path: ["again"], value: 1 }]);
  }
  await events.return();
  for (const w of [before, later]) await w.end();
});

/** stored is what the stream has: the message at a sequence, or a key's last. */
async function stored(query) {
  const m = await nc.request("$JS.API.DIRECT.GET.KV_weft_js_ctx", JSON.stringify(query), { timeout: 5_000 }).catch((e) => e);
  return m.headers?.has("Nats-Subject") ? m : undefined;
}

/** api asks for something that only an operator may. */
async function api(verb, q) {
  const answer = decode((await nc.request(`$JS.API.STREAM.${verb}.KV_weft_js_ctx`, JSON.stringify(q))).data, true);
  assert.equal(answer.error, undefined, verb);
  return answer;
}

/** markers sets how long a marker that the server writes stays, and so how long at least a value does that shall expire. */
async function markers(seconds) {
  const { config } = await api("INFO", {});
  await api("UPDATE", { ...config, subject_delete_marker_ttl: seconds * 1e9 });
  return config.subject_delete_marker_ttl / 1e9;
}

test("what shall expire is made permanent by nodes", async (t) => {
  const context = open("brief");
  const usual = await markers(1); // it would be ten minutes
  t.after(() => markers(usual));
  await context.put([], { kept: 1, gone: 1 });
  const watches = [await watch("brief"), await watch("brief")];
  const seqs = [await context.put(["limit"], 7, { ttl: "4s" }), await context.delete(["gone"], { ttl: "4s" }), await context.put(["limit", "below"], "newer")];
  for (const [i, key] of ["limit", "gone"].entries()) {
    const subject = `$KV.weft_js_ctx.brief.${key}`;
    const mended = await eventually(`${key} to be mended`, async () => {
      const m = await stored({ last_by_subj: subject });
      return !m.headers.has("Nats-TTL") && m;
    });
    assert.equal(mended.headers.get("Weft-As-Of"), String(seqs[i]), "in its place");
    await eventually(`the first write of ${key} to expire`, async () => !(await stored({ seq: seqs[i] })), 20_000);
    assert.equal((await stored({ last_by_subj: subject })).headers.last("Nats-Sequence"), mended.headers.last("Nats-Sequence"), "the value is still there");
  }
  const want = { kept: 1, limit: { below: "newer" } };
  assert.deepEqual(await agree(context), want);
  for (const w of watches) {
    const seen = [await w.next(), await w.next(), await w.next()];
    assert.deepEqual(seen.map((e) => [e.event, e.by, e.changes]), [
      ["changed", null, [{ path: ["limit"], value: 7 }]], ["changed", null, [{ path: ["gone"], removed: true }]], ["changed", null, [{ path: ["limit"], value: { below: "newer" } }]],
    ]);
    await w.end();
  }
});

test("edits through arrays fold as on a node", async () => {
  const context = open("arrays");
  const events = context.follow();
  await next(events);
  await weft("set", "arrays", '{"list":[1,2,{"a":[]}],"other":1}');
  await next(events);
  for (const [args, list] of [
    [["path", "arrays", "list.1", '"v"'], [1, "v", { a: [] }]],
    [["path", "arrays", "list.2.a.0", '{"b":1}'], [1, "v", { a: [{ b: 1 }] }]],
    [["path", "arrays", "list.2.a.0.b", "2"], [1, "v", { a: [{ b: 2 }] }]],
    [["path", "arrays", "list.3", "4"], [1, "v", { a: [{ b: 2 }] }, 4]],
    [["rm", "arrays", "list.0"], ["v", { a: [{ b: 2 }] }, 4]],
  ]) {
    await weft(...args);
    const e = await next(events);
    assert.deepEqual(e.object, { list, other: 1 }, args.join(" "));
    await agree(context, e.object);
  }
  // A key below an array is for an object: the array is gone, on both sides.
  await context.put(["list", "0"], "x");
  assert.deepEqual(await agree(context, (await next(events)).object), { list: { 0: "x" }, other: 1 });
  await weft("path", "arrays", '["a","b","' + "x".repeat(97) + '"]', "1"); // no key of its own
  assert.deepEqual(await agree(context, (await next(events)).object), { list: { 0: "x" }, other: 1, a: { b: { ["x".repeat(97)]: 1 } } });
  await events.return();
});

test("a node compacts what others wrote", async () => {
  const context = open("compact");
  const events = context.follow();
  await next(events);
  await context.put([], { first: 1, p0: { old: true } });
  const peer = fabric.peer("compact");
  await peer.line(/^ready$/);
  const watched = await watch("compact");
  const many = Array.from({ length: 300 }, (_, i) => [[`p${i}`, "v"], i]);
  const revision = await context.update([...many, [["first"], undefined]], { node: true, by: "js-1@laptop" });
  let e;
  do e = await next(events);
  while (e.revision !== revision);
  assert.equal(e.keys, 301, "one event for the whole batch");
  const line = await watched.next();
  assert.deepEqual([line.revision, line.changes.length, line.by], [revision, 301, { app: "js-1", node: "laptop" }]);
  assert.equal((await context.read()).keys, 301);
  const before = await agree(context, e.object);
  assert.deepEqual(before, Object.fromEntries(many.map(([[k], v]) => [k, k === "p0" ? { old: true, v } : { v }])));
  assert.deepEqual(await open("compact", { page: 7 }).read(), { exists: true, object: before, revision, keys: 301 }, "page by page");

  peer.write('{"path":["p5","w"],"value":[1]}\n');
  const [, own] = (await peer.line(/^revision/)).split(" ");
  e = await next(events);
  const after = { ...before, p5: { v: 5, w: [1] } };
  assert.deepEqual([e.kind, e.object, e.revision], ["changed", after, Number(own)]);
  const compacted = await eventually("the compaction", async () => {
    const got = await context.read();
    return got.keys === 0 && got;
  });
  assert.deepEqual(compacted, { exists: true, object: after, revision: Number(own), keys: 0 });
  assert.equal((await stored({ last_by_subj: "$KV.weft_js_ctx.compact./" })).headers.get("Weft-By"), "@peer");
  await agree(context);
  assert.deepEqual(step(await watched.next()).changes, [{ path: ["p5", "w"], value: [1] }]);

  // Nobody was told of the compaction: the next event is the next write.
  await context.put(["p6", "v"], "x");
  e = await next(events);
  assert.deepEqual([e.keys, e.object], [1, { ...after, p6: { v: "x" } }]);
  await agree(context, e.object);
  assert.deepEqual(step(await watched.next()).changes, [{ path: ["p6", "v"], value: "x" }]);

  // At 900 the next write of any node compacts first.
  await context.update(Array.from({ length: 950 }, (_, i) => [[`q${i}`], i]));
  await next(events);
  await weft("path", "compact", "p7.v", '"y"');
  e = await next(events);
  assert.deepEqual([e.keys, e.object.q949, e.object.p7], [1, 949, { v: "y" }]);
  assert.equal((await agree(context, e.object)).q0, 0); // the markers of 1,250 keys are still there
  assert.equal(events.foreign, 0);
  await events.return();
  peer.kill();
  await watched.end();
});

test("more keys than one request may ask for", async () => {
  const context = open("crowd");
  const events = context.follow();
  await next(events);
  await context.put([], {});
  for (const k of ["a", "b", "c"]) await context.update(Array.from({ length: 600 }, (_, i) => [[`${k}${i}`], i]));
  assert.equal((await context.read()).keys, 1800);
  await weft("path", "crowd", "d", "1");
  const object = await agree(context);
  assert.equal(Object.keys(object).length, 1801);
  let e;
  do e = await next(events);
  while (e.object.d !== 1);
  assert.deepEqual(e.object, object);
  assert.equal(e.keys, (await context.read()).keys);
  await events.return();
});

/** lossy is the connection, but for the republished writes of the keys that are in lost, once each. */
const lossy = (lost) => ({
  publish: (...args) => nc.publish(...args),
  request: (...args) => nc.request(...args),
  status: () => nc.status(),
  subscribe: (subject, options) => nc.subscribe(subject, options && { callback: (err, m) => lost.delete(m.subject.split(".").at(-1)) || options.callback(err, m) }),
});

for (const part of ["a", "b", "c"]) {
  test(`a follower does not show a batch without ${part}`, async () => {
    const writer = open(`part-${part}`);
    await writer.put([], { n: 0 });
    const events = open(writer.name, { nc: lossy(new Set([part])), check: 3_600_000 }).follow();
    await next(events);
    await writer.update([[["a"], 1], [["b"], 1], [["c"], 1]]);
    const e = await next(events);
    assert.deepEqual(e.object, { n: 0, a: 1, b: 1, c: 1 });
    assert.ok(events.reads >= 2, "read again");
    await writer.put(["d"], 1);
    assert.equal((await next(events)).object.d, 1);
    await events.return();
  });
}

test("a follower's check finds what was lost", async () => {
  const writer = open("lost");
  await writer.put([], { n: 0 });
  const events = open("lost", { nc: lossy(new Set(["n"])), check: 200 }).follow();
  await next(events);
  await writer.put(["n"], 1);
  assert.deepEqual((await next(events)).object, { n: 1 });
  assert.equal(events.caught, 1);
  await events.return();
});

test("a follower reads again when the connection was made again", async () => {
  const own = await dial();
  const writer = open("again");
  await writer.put([], { n: 0 });
  const events = open("again", { nc: own, check: 3_600_000 }).follow();
  await next(events);
  const gone = (async () => {
    for await (const s of own.status()) if (s.type === "disconnect") return writer.update([[["n"], 1], [["m"], 1]]);
  })();
  await own.reconnect();
  await gone;
  const e = await next(events);
  assert.deepEqual(e.object, { n: 1, m: 1 });
  assert.ok(events.reads >= 2, "read again");
  await writer.put(["n"], 2);
  assert.equal((await next(events)).object.n, 2);
  await events.return();
  await own.close();
});

test("what a NATS server was made to repeat is not a write", async () => {
  const context = open("repeat");
  await context.put([], { n: 0, m: 0 });
  await context.put(["n"], 1);
  const events = context.follow();
  await next(events);
  const watched = await watch("repeat");
  nc.publish("$JS.API.DIRECT.GET.KV_weft_js_ctx", JSON.stringify({ last_by_subj: "$KV.weft_js_ctx.repeat.n" }), { reply: "weft.js.kv.ctx.repeat.m" });
  nc.publish("weft.js.kv.ctx.repeat.m", encode(5));
  await eventually("both to be counted", () => events.foreign === 2);
  await context.put(["end"], 1);
  assert.deepEqual((await next(events)).object, { n: 1, m: 0, end: 1 });
  assert.deepEqual((await watched.next()).changes, [{ path: ["end"], value: 1 }]);
  await events.return();
  await watched.end();
});

test("writes that cannot be", async () => {
  const context = open("cannot");
  for (const [what, code, write] of [
    ["a root that is no object", "bad-payload", () => context.put([], [1])],
    ["too deep", "bad-payload", () => context.put(["a"], JSON.parse("[".repeat(64) + "]".repeat(64)))],
    ["a segment that is too long", "bad-name", () => context.put(["x".repeat(97)], 1)],
    ["17 segments", "bad-name", () => context.put(Array(17).fill("a"), 1)],
    ["no write", "limit", () => context.update([])],
    ["a batch whose conditions do not hold", "unavailable", () => context.update([[["a"], 1], [["a"], 2]], { headers: { "Nats-Expected-Last-Subject-Sequence": "7" } })],
  ]) await assert.rejects(async () => write(), { code }, what);
  assert.equal((await context.read()).keys, 0);
});

test("a bucket that was made anew", async () => {
  const context = open("anew");
  for (let n = 0; n < 50; n++) await context.put([], { n });
  const events = open("anew", { check: 200 }).follow();
  assert.deepEqual((await next(events)).object, { n: 49 });
  const { config } = await api("INFO", {});
  await api("DELETE");
  await api("CREATE", config);
  assert.equal((await next(events)).kind, "destroyed");
  await context.put([], { anew: 1 });
  const { object, revision } = await next(events);
  assert.deepEqual([object, revision], [{ anew: 1 }, 1]);
  await context.put(["more"], 1);
  assert.deepEqual(await agree(context, (await next(events)).object), { anew: 1, more: 1 });
  await events.return();
});
