// Shared contexts: what one app writes, all others read.
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { eventually, within } from "../../fabric.mjs";
import { Log } from "../apps.mjs";

/** follow subscribes: log has every callback as {data, delta, removed, by}. */
export async function follow(app, name) {
  const log = new Log();
  const stop = await app.io.contexts.subscribe(name, (data, delta, removed, unsubscribe, extra) => log.add({ data, delta, removed, unsubscribe, by: extra?.updaterId }));
  return {
    log,
    stop,
    has: (data, what = "the data") => log.until(`${app.application}: ${what} to be ${JSON.stringify(data)}`, () => isDeepStrictEqual(log.last?.data, data)),
  };
}

/** context is a name whose context is destroyed after the check. */
function context({ a, fresh, after }, name) {
  const unique = fresh(name);
  after(() => a.io.contexts.all().includes(unique) && a.io.contexts.destroy(unique));
  return unique;
}

/** reads is what an app reads that has not touched the context before. */
export async function reads(app, name) {
  const { log, stop } = await follow(app, name);
  const { data } = await log.entry(0, `${app.application} to see ${name}`);
  stop();
  await settle(app);
  return data;
}

/** settle waits until the gateway has done what app asked for without waiting. */
export async function settle(app) {
  await (await app.io.bus.subscribe("settle", () => {})).unsubscribe();
}

const keys = (object) => Object.keys(object).sort();

// From {a: 1, o: {x: 1, y: 2}, arr: [1, 2, 3]}: an operation, what is there then, and which top-level keys changed or went.
const start = () => ({ a: 1, o: { x: 1, y: 2 }, arr: [1, 2, 3] });
const rules = [
  ["update replaces a property", (c, n) => c.update(n, { o: { z: 3 } }), { a: 1, o: { z: 3 }, arr: [1, 2, 3] }, ["o"], []],
  ["update adds properties", (c, n) => c.update(n, { b: 2, "with space": { ü: [] } }), { ...start(), b: 2, "with space": { ü: [] } }, ["b", "with space"], []],
  ["update with null removes", (c, n) => c.update(n, { a: null }), { o: { x: 1, y: 2 }, arr: [1, 2, 3] }, ["a"], ["a"]],
  ["update keeps a nested null", (c, n) => c.update(n, { n: { m: null, l: [null] } }), { ...start(), n: { m: null, l: [null] } }, ["n"], []],
  ["update replaces an array", (c, n) => c.update(n, { arr: [9] }), { ...start(), arr: [9] }, ["arr"], []],
  ["update makes a number an object", (c, n) => c.update(n, { a: { deep: [] } }), { ...start(), a: { deep: [] } }, ["a"], []],
  ["update reads a dot as a path", (c, n) => c.update(n, { "o.x": 7 }), { ...start(), o: { x: 7, y: 2 } }, ["o"], []],
  ["setPath makes objects on the way", (c, n) => c.setPath(n, "p.q.r", 5), { ...start(), p: { q: { r: 5 } } }, ["p"], []],
  ["setPath below an object", (c, n) => c.setPath(n, "o.x", { v: null }), { ...start(), o: { x: { v: null }, y: 2 } }, ["o"], []],
  ["setPath through a number", (c, n) => c.setPath(n, "a.b", 1), { ...start(), a: { b: 1 } }, ["a"], []],
  ["setPath with null removes", (c, n) => c.setPath(n, "o.x", null), { ...start(), o: { y: 2 } }, ["o"], []],
  ["setPath with null leaves the parent", (c, n) => c.setPaths(n, [{ path: "o.x", value: null }, { path: "o.y", value: null }]), { ...start(), o: {} }, ["o"], []],
  ["setPath into an array", (c, n) => c.setPath(n, "arr.1", "v"), { ...start(), arr: [1, "v", 3] }, ["arr"], []],
  ["setPath without a path", (c, n) => c.setPath(n, "", { whole: 1 }), { whole: 1 }],
  ["setPaths does all at once", (c, n) => c.setPaths(n, [{ path: "o.x", value: 9 }, { path: "new", value: {} }, { path: "a", value: null }]), { o: { x: 9, y: 2 }, arr: [1, 2, 3], new: {} }, ["a", "new", "o"], ["a"]],
  ["set replaces everything", (c, n) => c.set(n, { r: 1 }), { r: 1 }],
  ["set to nothing", (c, n) => c.set(n, {}), {}],
];

export const contexts = {
  "contexts: set, get, all": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Client ü/1");
    const value = { name: "ACME", "": 1, deep: { list: [{ id: 1 }, null] }, half: 0.5, big: 2 ** 53, at: new Date(5), text: "Zürich 𝄞\n", long: "x".repeat(200_000) };
    assert.deepEqual(await b.io.contexts.get(name), {}, "nobody has set it");
    const live = await follow(b, name);
    await a.io.contexts.set(name, value);
    assert.deepEqual(await a.io.contexts.get(name), value, "the writer reads what it wrote");
    await live.has(value);
    assert.deepEqual(await b.io.contexts.get(name), value);
    assert.ok(b.io.contexts.all().includes(name) && a.io.contexts.all().includes(name));
    assert.deepEqual(await reads(c, name), value);
  },

  "contexts: merge rules": async (x) => {
    const { a, b, c } = x;
    for (const [rule, operation, want, changed, removed] of rules) {
      const name = context(x, "Rule");
      const [writer, live] = [await follow(a, name), await follow(b, name)];
      await a.io.contexts.set(name, start());
      await live.has(start());
      await operation(a.io.contexts, name);
      await writer.has(want, `${rule}: what the writer has`);
      await live.has(want, `${rule}: what a reader has`);
      assert.equal(live.log.all.length, 2, `${rule}: one callback`);
      if (changed) assert.deepEqual([keys(live.log.last.delta), live.log.last.removed], [changed, removed], `${rule}: what changed`);
      assert.deepEqual(await reads(c, name), want, `${rule}: a late joiner`);
    }
  },

  "contexts: late joiner and live reader agree": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Long");
    const live = await follow(b, name);
    await a.io.contexts.set(name, { list: [{ q: 1 }, { q: 2 }], o: {} });
    for (let i = 0; i < 30; i++) {
      await a.io.contexts.setPaths(name, [{ path: `list.${i % 3}.q`, value: i }, { path: `o.k${i % 5}`, value: i % 4 ? { i, l: [i] } : null }]);
      if (i % 7 === 3) await a.io.contexts.update(name, { o: null, [`t${i}`]: [[i]] });
    }
    const last = await a.io.contexts.get(name);
    await live.has(last);
    assert.deepEqual(await reads(c, name), last);
    assert.ok(Array.isArray(last.list), "an array stays one");
  },

  "contexts: updates of both sides": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Both");
    const [one, two] = [await follow(a, name), await follow(b, name)];
    await a.io.contexts.set(name, { from: "a" });
    await two.has({ from: "a" });
    assert.equal(two.log.all.length, 1, "one snapshot");
    await b.io.contexts.update(name, { to: "b" });
    await one.has({ from: "a", to: "b" });
    assert.equal(one.log.last.by, b.peer, "who updated");
    assert.equal(two.log.last.by, b.peer, "the updater is called too");
    await b.io.contexts.update(name, { to: "b" });
    await b.io.contexts.update(name, { nothing: undefined });
    await b.io.contexts.update(name, { end: true });
    await one.has({ from: "a", to: "b", end: true });
    assert.deepEqual([one.log.all.length, two.log.all.length], [3, 3], "nothing for the same value");
    assert.deepEqual(await reads(c, name), { from: "a", to: "b", end: true });
  },

  "contexts: unsubscribe": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Quiet");
    const [stays, goes, other] = [await follow(b, name), await follow(b, name), await follow(c, name)];
    await a.io.contexts.set(name, { n: 1 });
    await Promise.all([stays, goes, other].map((f) => f.has({ n: 1 })));
    goes.stop();
    other.log.last.unsubscribe();
    await settle(c);
    await a.io.contexts.update(name, { n: 2 });
    await stays.has({ n: 2 });
    assert.deepEqual([goes.log.all.length, other.log.all.length], [1, 1]);
    const again = await follow(c, name);
    await again.has({ n: 2 });
    await a.io.contexts.update(name, { n: 3 });
    await again.has({ n: 3 });
  },

  "contexts: destroy": async (x) => {
    const { a, b } = x;
    const name = context(x, "Gone");
    await a.io.contexts.set(name, { n: 1 });
    assert.deepEqual(await reads(b, name), { n: 1 });
    await b.io.contexts.destroy(name);
    assert.equal(b.io.contexts.all().includes(name), false);
    await eventually("the other side to hear", () => !a.io.contexts.all().includes(name));
    assert.deepEqual(await b.io.contexts.get(name), {});
    await assert.rejects(b.io.contexts.destroy(x.fresh("Never")));
    const live = await follow(b, name);
    await a.io.contexts.set(name, { again: true });
    await live.has({ again: true });
    assert.deepEqual(live.log.all.length, 1);
  },

  "contexts: many updates in order": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Ticks");
    const [own, live] = [await follow(a, name), await follow(b, name)];
    await a.io.contexts.set(name, { n: -1 });
    await own.has({ n: -1 }); // @glue42 sends a first update late that has to subscribe before
    await flood(a, name);
    const last = Object.fromEntries([["n", 199], ...Array.from({ length: 10 }, (_, i) => [`k${i}`, 190 + i])]);
    await live.has(last);
    const seen = live.log.all.map((e) => e.data.n);
    assert.deepEqual(seen, [...seen].sort((l, r) => l - r), "never something older after something newer");
    assert.deepEqual(await reads(c, name), last);
  },

  "contexts: every update is answered": async (x) => {
    const { a, b, c } = x;
    for (let round = 0; round < 5; round++) {
      const name = context(x, "Flood");
      const live = await follow(b, name);
      await a.io.contexts.set(name, {});
      await flood(a, name);
      await a.io.contexts.update(name, { end: true });
      const { data } = await live.log.until("the end", (all) => all.at(-1)?.data.end && all.at(-1));
      assert.deepEqual(await reads(c, name), data);
    }
  },

  "contexts: racing updates converge": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Race");
    const all = [await follow(a, name), await follow(b, name), await follow(c, name)];
    await a.io.contexts.set(name, { v: "" });
    await Promise.all(all.map((f) => f.has({ v: "" })));
    for (let round = 0; round < 60; round++) {
      await Promise.all([a.io.contexts.update(name, { v: `a${round}` }), b.io.contexts.update(name, { v: `b${round}` })]);
      const [l, m, r] = await after(round, x, name, all);
      assert.deepEqual([m, r], [l, l], `round ${round}`);
      assert.match(l.v, new RegExp(`^[ab]${round}$`));
    }
    const late = await x.join(b.gateway);
    assert.deepEqual(await reads(late, name), all[0].log.last.data);
  },

  "contexts: racing updates of different properties": async (x) => {
    const { a, b, c } = x;
    const name = context(x, "Keys");
    const all = [await follow(a, name), await follow(b, name), await follow(c, name)];
    await a.io.contexts.set(name, { o: {} });
    await Promise.all(all.map((f) => f.has({ o: {} })));
    for (let round = 0; round < 30; round++) {
      await Promise.all([a.io.contexts.setPath(name, "o.a", round), b.io.contexts.setPath(name, "o.b", round), a.io.contexts.update(name, { a: round }), b.io.contexts.update(name, { b: round })]);
      await Promise.all(all.map((f) => f.has({ o: { a: round, b: round }, a: round, b: round }, `round ${round}`)));
    }
  },

  "contexts: racing creators converge": async (x) => {
    const { a, b, c } = x;
    for (let round = 0; round < 40; round++) {
      const name = context(x, "Twins");
      await Promise.all([a.io.contexts.set(name, { by: "a" }), b.io.contexts.set(name, { by: "b" })]);
      const all = [await follow(a, name), await follow(b, name), await follow(c, name)];
      await all[2].log.entry(0);
      const [l, m, r] = await after(round, x, name, all);
      assert.deepEqual([m, r], [l, l], `round ${round}`);
      assert.match(l.by, /^[ab]$/);
    }
  },
};

/** after is what all have that followed when they have had everything that was written before it. */
async function after(round, { a, c }, name, all) {
  await a.io.contexts.update(name, { here: round }); // a machine shows its own writes before earlier ones of others,
  await c.io.contexts.update(name, { there: round }); // so each side says when it has had what the other wrote
  const both = ({ here, there } = {}) => here === round && there === round;
  return Promise.all(all.map((f) => f.log.until(`round ${round}`, (e) => both(e.at(-1)?.data) && e.at(-1).data)));
}

/** flood makes 200 updates without waiting, and then waits for all of them. */
function flood(app, name) {
  const updates = Array.from({ length: 200 }, (_, n) => app.io.contexts.update(name, { n, [`k${n % 10}`]: n }));
  let answered = 0;
  for (const u of updates) u.then(() => answered++, () => {});
  return within(5_000, () => `answers to 200 updates, there were ${answered}`, Promise.all(updates));
}
