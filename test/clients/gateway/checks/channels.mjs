// Channels of the desktop libraries: contexts with a colour that apps join.
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { eventually } from "../../fabric.mjs";
import { Log } from "../apps.mjs";
import { follow, reads, settle } from "./contexts.mjs";
import { any, between, desktop } from "./suite.mjs";

const io = (l) => l.name === "@interopio/desktop";
const contextOf = (channel) => `___channel___${channel}`;
export const defaults = ["Blue", "Cyan", "DarkYellow", "Green", "Lime", "Orange", "Pink", "Purple", "Red", "Yellow"];

/** channel adds a channel for one check, which both apps know and leave after it. */
async function channel({ a, b, c, fresh, after }, data = {}) {
  const name = fresh("Desk");
  await a.io.channels.add({ name, meta: { color: "teal", label: "D" }, data });
  after(async () => {
    for (const app of [a, b, c]) {
      if (app.io.channels?.my()) await app.io.channels.leave();
      await settle(app);
    }
    if ((await a.io.channels.all()).includes(name)) await a.io.channels.remove(name);
  });
  await reads(b, contextOf(name));
  return name;
}

/** listen collects what subscribe calls back with. */
function listen({ after }, app) {
  const log = new Log();
  after(app.io.channels.subscribe((data, context, updater) => log.add({ data, channel: context?.name, by: updater })));
  return { log, has: (data) => log.until(`${app.application} to hear ${JSON.stringify(data)}`, (all) => all.findLast((e) => isDeepStrictEqual(e.data, data))) };
}

export const channels = {
  "channels: the ten defaults": between(desktop, desktop, async ({ a, b }) => {
    for (const app of [a, b]) {
      const names = await app.io.channels.all();
      for (const name of defaults) assert.ok(names.includes(name), `${name} is missing`);
      const list = await app.io.channels.list();
      const red = list.find((c) => c.name === "Red");
      assert.equal(red.meta.color, "red");
      assert.equal(typeof red.data, "object");
      assert.deepEqual((await app.io.channels.get("Blue")).meta.color, "#66ABFF");
      await assert.rejects(app.io.channels.get("Nowhere"), /doesn't exist/);
    }
  }),

  "channels: join, publish, subscribe": between(desktop, desktop, async (x) => {
    const { a, b } = x;
    const name = await channel(x);
    const [first, second] = [listen(x, a), listen(x, b)];
    await Promise.all([a.io.channels.join(name), b.io.channels.join(name)]);
    assert.deepEqual([a.io.channels.my(), b.io.channels.current()], [name, name]);
    await a.io.channels.publish({ client: { id: 1, tags: ["x"] }, n: 1 });
    const heard = await second.has({ client: { id: 1, tags: ["x"] }, n: 1 });
    assert.deepEqual([heard.channel, heard.by], [name, a.peer]);
    await first.has({ client: { id: 1, tags: ["x"] }, n: 1 });
    await b.io.channels.publish({ client: { id: 2 } });
    await first.has({ client: { id: 2 }, n: 1 });
    assert.deepEqual((await b.io.channels.getMy()).data, { client: { id: 2 }, n: 1 });
    assert.deepEqual((await a.io.channels.get(name)).data, { client: { id: 2 }, n: 1 });
  }),

  "channels: late joiner": between(desktop, desktop, async (x) => {
    const { a, b } = x;
    const name = await channel(x, { from: "add" });
    await a.io.channels.publish({ n: 7, list: [1, { l: [] }] }, name);
    await b.io.channels.join(name);
    const heard = listen(x, b);
    await heard.has({ from: "add", n: 7, list: [1, { l: [] }] });
    assert.equal(heard.log.all.length, 1, "once");
  }),

  "channels: switch and leave": between(desktop, desktop, async (x) => {
    const { a, b } = x;
    const [one, two] = [await channel(x), await channel(x)];
    const changed = new Log();
    x.after(b.io.channels.onChanged((name) => changed.add({ name })));
    const heard = listen(x, b);
    await b.io.channels.join(one);
    await b.io.channels.join(two);
    await a.io.channels.publish({ to: "one" }, one);
    await a.io.channels.publish({ to: "two" }, two);
    await heard.has({ to: "two" });
    await b.io.channels.leave();
    assert.equal(b.io.channels.my(), undefined);
    await changed.until("three changes", (all) => all.length === 3);
    assert.deepEqual(changed.all.map((e) => e.name), [one, two, undefined]);
    await a.io.channels.publish({ to: "nobody" }, two);
    const live = await follow(b, contextOf(two));
    await live.log.until("it is there", (all) => all.at(-1)?.data.data.to === "nobody");
    assert.deepEqual(heard.log.all.filter((e) => ["one", "nobody"].includes(e.data?.to)), []);
    await assert.rejects(b.io.channels.publish({ n: 1 }), /Not joined to any channel!/);
    await assert.rejects(b.io.channels.publish({ n: 1 }, "Nowhere"), /doesn't exist/);
  }),

  "channels: subscribe to one without joining": between(desktop, desktop, async (x) => {
    const { a, b } = x;
    const name = await channel(x, { n: 0 });
    const log = new Log();
    const stop = await b.io.channels.subscribeFor(name, (data, context) => log.add({ data, channel: context.name }));
    await log.until("the present", (all) => isDeepStrictEqual(all.at(-1), { data: { n: 0 }, channel: name }));
    await a.io.channels.publish({ n: 1 }, name);
    await log.until("a change", (all) => isDeepStrictEqual(all.at(-1).data, { n: 1 }));
    assert.equal(b.io.channels.my(), undefined);
    stop();
    await settle(b);
    await assert.rejects(b.io.channels.subscribeFor("Nowhere", () => {}), /doesn't exist/);
  }),

  "channels: add and remove": between(desktop, desktop, async (x) => {
    const { a, b } = x;
    const name = x.fresh("Extra");
    await a.io.channels.add({ name, meta: { color: "#123456", label: "E" }, data: { n: 1 } });
    await reads(b, contextOf(name));
    assert.ok((await b.io.channels.all()).includes(name));
    const got = await b.io.channels.get(name);
    assert.deepEqual([got.name, got.meta.color, got.data], [name, "#123456", { n: 1 }]);
    assert.ok((await a.io.channels.list()).some((c) => c.name === name));
    await b.io.channels.join(name);
    await b.io.channels.leave();
    await b.io.channels.remove(name);
    assert.equal((await b.io.channels.all()).includes(name), false);
    await eventually("the other side to hear", async () => !(await a.io.channels.all()).includes(name));
    await assert.rejects(b.io.channels.publish({ n: 1 }, name), /doesn't exist/);
    assert.ok((await b.io.channels.all()).includes("Red"));
  }),

  "channels: the context behind one": between(desktop, any, async (x) => {
    const { a, b } = x;
    const name = await channel(x);
    await a.io.channels.publish({ n: 1, "a.b": 2 }, name);
    const live = await follow(b, contextOf(name));
    await live.log.until("published data", (all) => isDeepStrictEqual(all.at(-1)?.data.data, { n: 1, a: { b: 2 } }));
    const { name: own, meta } = live.log.last.data;
    assert.deepEqual([own, meta.color], [name, "teal"]);
    await a.io.channels.join(name);
    const heard = listen(x, a);
    await b.io.contexts.setPath(contextOf(name), "data.n", 2);
    await heard.has({ n: 2, a: { b: 2 } });
  }),

  "channels: FDC3 contexts": between(io, desktop, async (x) => {
    const { a, b } = x;
    const name = await channel(x);
    const heard = listen(x, b);
    await b.io.channels.join(name);
    await a.io.channels.publish({ type: "fdc3.instrument", id: { ticker: "VOD" } }, { name, fdc3: true });
    await heard.has(io(b.library) ? { fdc3: { type: "fdc3.instrument", id: { ticker: "VOD" } } } : { "fdc3_fdc3&instrument": { id: { ticker: "VOD" } } });
    if (!io(b.library)) return; // it has no calls for the rest
    await a.io.channels.publish({ type: "fdc3.contact", name: "Ann" }, { name, fdc3: true });
    await heard.has({ "fdc3_fdc3&instrument": { id: { ticker: "VOD" } }, fdc3: { type: "fdc3.contact", name: "Ann" } });
    assert.deepEqual((await b.io.channels.get(name, { contextType: "fdc3.instrument" })).data, { fdc3: { type: "fdc3.instrument", id: { ticker: "VOD" } } });
  }),

  "channels: paths and clearing": between(io, desktop, async (x) => {
    const { a, b } = x;
    const name = await channel(x, { deep: { n: 1, m: 2 } });
    await b.io.channels.join(name);
    const heard = listen(x, b);
    await a.io.channels.setPath({ path: "deep.n", value: 5 }, name);
    await heard.has({ deep: { n: 5, m: 2 } });
    await a.io.channels.setPaths([{ path: "deep.m", value: 6 }, { path: "more.x", value: [1] }], name);
    await heard.has({ deep: { n: 5, m: 6 }, more: { x: [1] } });
    await a.io.channels.clearChannelData(name);
    await heard.has({});
    assert.deepEqual((await a.io.channels.get(name)).data, {});
  }),

  "channels: restrictions": between(io, desktop, async (x) => {
    const { a, b } = x;
    const name = await channel(x);
    const heard = listen(x, a);
    await a.io.channels.join(name);
    await a.io.channels.restrict({ name, read: false, write: false });
    x.after(() => a.io.channels.restrict({ name, read: true, write: true }));
    assert.deepEqual((await a.io.channels.getRestrictions()).channels.filter((c) => c.name === name).map(({ read, write }) => ({ read, write })), [{ read: false, write: false }]);
    await assert.rejects(a.io.channels.publish({ n: 1 }), { message: `Window does not have permission to write to channel ${name}` });
    await assert.rejects(a.io.contexts.setPath(contextOf(name), "data.n", 1), undefined, "the gateway refuses it too");
    await b.io.channels.publish({ n: 2 }, name);
    const live = await follow(b, contextOf(name));
    await live.log.until("it is in the context", (all) => all.at(-1)?.data.data.n === 2);
    await settle(a);
    assert.deepEqual(heard.log.all.filter((e) => e.data?.n), [], "held back");
    await a.io.channels.restrict({ name, read: true, write: true });
    await heard.has({ n: 2 });
    await a.io.channels.publish({ n: 3 });
    await live.log.until("published again", (all) => all.at(-1)?.data.data.n === 3);
  }),

  "channels: several at once": between(desktop, io, async (x) => {
    const { a, b } = x;
    const [one, two] = [await channel(x), await channel(x)];
    const multi = await x.join(b.gateway, b.library, { channels: { enabled: true, operationMode: "multi" } });
    const heard = listen(x, multi);
    await multi.io.channels.join(one);
    await multi.io.channels.join(two);
    assert.deepEqual(multi.io.channels.myChannels(), [one, two]);
    await a.io.channels.publish({ to: "one" }, one);
    await heard.has({ to: "one" });
    await a.io.channels.publish({ to: "two" }, two);
    await heard.has({ to: "two" });
    await multi.io.channels.publish({ both: 1 });
    for (const name of [one, two]) {
      const live = await follow(a, contextOf(name));
      await live.log.until(`${name} has it`, (all) => all.at(-1)?.data.data.both === 1);
    }
    await multi.io.channels.leave({ channel: one });
    assert.deepEqual(multi.io.channels.myChannels(), [two]);
    await multi.io.channels.leave();
  }),
};
