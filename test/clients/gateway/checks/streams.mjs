// Streams: one app publishes, others subscribe.
import assert from "node:assert/strict";
import { within } from "../../fabric.mjs";
import { Log } from "../apps.mjs";

const count = (n) => Array.from({ length: n }, (_, i) => i);

/** publisher makes a stream and records what subscribers do. */
async function publisher({ fresh, after, sees, b, c }, app, { request, added } = {}) {
  const name = fresh("Stream");
  const removed = new Log();
  const stream = await app.io.interop.createStream({ name, displayName: "A stream", accepts: "string what" }, {
    ...(request && { subscriptionRequestHandler: request }),
    ...(added && { subscriptionAddedHandler: added }),
    subscriptionRemovedHandler: removed.add,
  });
  let closed = false;
  const close = () => {
    if (!closed && !app.left) stream.close();
    closed = true;
  };
  after(close);
  await Promise.all([sees(b, name), sees(c, name)]);
  return { name, stream, removed, close };
}

/** reader subscribes; data is what it receives. */
async function reader({ after }, app, name, options = {}) {
  const log = { data: new Log(), closed: new Log(), connected: new Log() };
  const subscription = await app.io.interop.subscribe(name, { ...options, onData: log.data.add, onClosed: log.closed.add, onConnected: (...args) => log.connected.add(args) });
  after(() => app.left || subscription.close());
  return { ...log, subscription, got: (n) => log.data.until(`${n} items`, (all) => all.length >= n && all.map((d) => d.data)) };
}

export const streams = {
  "streams: subscribe and push": async (x) => {
    const { a, b, c } = x;
    const { name, stream } = await publisher(x, a);
    assert.equal(b.io.interop.methods({ name })[0].supportsStreaming, true);
    assert.equal(b.io.interop.methods({ name })[0].displayName, "A stream");
    stream.push({ early: true });
    const readers = [await reader(x, b, name, { arguments: { what: "all" } }), await reader(x, c, name), await reader(x, a, name)];
    assert.deepEqual(stream.subscriptions().map((s) => s.instance.instance).sort(), [a, b, c].map((app) => app.instance).sort());
    const items = count(200).map((i) => ({ i, at: new Date(i), deep: { list: [i, null] } }));
    for (const item of items) stream.push(item);
    for (const r of readers) assert.deepEqual(await r.got(items.length), items, "all of them, in order, and none from before");
    const { private: isPrivate, requestArguments, server } = readers[0].data.all[0];
    assert.deepEqual([isPrivate, requestArguments, server.instance], [false, { what: "all" }, a.instance]);
    assert.equal(readers[0].connected.all[0][0].instance, a.instance);
  },

  "streams: accept, reject with a reason": async (x) => {
    const { a, b } = x;
    let asked;
    const { name, stream } = await publisher(x, a, {
      request: (r) => {
        asked = r;
        if (r.arguments.what === "secrets") r.reject("members only ü");
        else r.accept();
      },
    });
    await assert.rejects(b.io.interop.subscribe(name, { arguments: { what: "secrets" } }), (e) => {
      assert.equal(e.message, `Subscription rejected. Publisher said "Subscription rejected by user. members only ü". Called with:{"what":"secrets"}`);
      return true;
    });
    assert.deepEqual(stream.subscriptions(), []);
    const r = await reader(x, b, name, { arguments: { what: "news" } });
    assert.deepEqual([asked.instance.instance, asked.arguments], [b.instance, { what: "news" }]);
    stream.push({ n: 1 });
    assert.deepEqual(await r.got(1), [{ n: 1 }]);
    await assert.rejects(b.io.interop.subscribe(x.fresh("Nowhere"), { waitTimeoutMs: 1 }), { message: "Subscription failed. No available servers matched the target params." });
  },

  "streams: branches": async (x) => {
    const { a, b, c } = x;
    const { name, stream, removed } = await publisher(x, a, { request: (r) => (r.arguments.branch ? r.acceptOnBranch(r.arguments.branch) : r.accept()) });
    const vod = await reader(x, b, name, { arguments: { branch: "VOD.L" } });
    const bmw = await reader(x, c, name, { arguments: { branch: "BMW ü" } });
    const plain = await reader(x, b, name);
    assert.deepEqual(stream.branches().map((s) => s.key).sort(), ["", "BMW ü", "VOD.L"]);
    stream.push({ n: 1 }, "VOD.L");
    stream.branch("BMW ü").push({ n: 2 });
    stream.push({ n: 3 }, ["VOD.L", "BMW ü"]);
    stream.push({ n: 4 }, "nobody");
    stream.push({ n: 5 });
    assert.deepEqual(await vod.got(3), [{ n: 1 }, { n: 3 }, { n: 5 }]);
    assert.deepEqual(await bmw.got(3), [{ n: 2 }, { n: 3 }, { n: 5 }]);
    assert.deepEqual(await plain.got(1), [{ n: 5 }]);
    assert.equal(stream.branch("VOD.L").subscriptions()[0].instance.instance, b.instance);
    vod.subscription.close();
    await removed.entry(0);
    assert.equal(stream.branch("VOD.L"), undefined, "the last one left");
    stream.branch("BMW ü").close();
    assert.equal((await bmw.closed.entry(0)).message, "ServerInitiated");
    stream.push({ n: 6 });
    assert.deepEqual(await plain.got(2), [{ n: 5 }, { n: 6 }]);
    assert.equal(bmw.data.all.length, 3);
  },

  "streams: private data": async (x) => {
    const { a, b, c } = x;
    const { name, stream } = await publisher(x, a, { added: (s) => s.push({ snapshot: s.arguments.what }) });
    const [first, second] = [await reader(x, b, name, { arguments: { what: "one" } }), await reader(x, c, name, { arguments: { what: "two" } })];
    stream.push({ n: 1 });
    const mine = stream.subscriptions().find((s) => s.instance.instance === c.instance);
    mine.push({ only: "you" });
    stream.push({ n: 2 });
    await Promise.all([first.got(3), second.got(4)]);
    const of = (r, isPrivate) => r.data.all.filter((d) => d.private === isPrivate).map((d) => d.data);
    assert.deepEqual([of(first, true), of(first, false)], [[{ snapshot: "one" }], [{ n: 1 }, { n: 2 }]]);
    assert.deepEqual([of(second, true), of(second, false)], [[{ snapshot: "two" }, { only: "you" }], [{ n: 1 }, { n: 2 }]]);
  },

  "streams: private and shared data in the order of the publisher": async (x) => {
    const { a, b } = x;
    const { name, stream } = await publisher(x, a, { added: (s) => s.push({ n: -1 }) });
    const r = await reader(x, b, name);
    for (const n of count(200)) {
      if (n % 3 === 0) stream.subscriptions()[0].push({ n });
      else stream.push({ n });
    }
    assert.deepEqual((await r.got(201)).map((d) => d.n), [-1, ...count(200)]);
  },

  "streams: what is pushed on accepting arrives": async (x) => {
    const { a, b } = x;
    const { name, stream } = await publisher(x, a, {
      added: () => {
        stream.push({ n: 1 });
        stream.push({ n: 2 });
      },
    });
    const r = await reader(x, b, name);
    stream.push({ n: 3 });
    assert.deepEqual(await r.got(3), [{ n: 1 }, { n: 2 }, { n: 3 }]);
  },

  "streams: subscriber closes": async (x) => {
    const { a, b, c } = x;
    const { name, stream, removed } = await publisher(x, a);
    const [r, other] = [await reader(x, b, name), await reader(x, c, name)];
    r.subscription.close();
    assert.equal((await removed.entry(0)).instance.instance, b.instance);
    assert.equal((await r.closed.entry(0)).message, "ClientInitiated");
    stream.push({ n: 1 });
    assert.deepEqual(await other.got(1), [{ n: 1 }]);
    assert.deepEqual([r.data.all, stream.subscriptions().map((s) => s.instance.instance)], [[], [c.instance]]);
  },

  "streams: subscriber leaves": async (x) => {
    const { a, b } = x;
    const { name, stream, removed } = await publisher(x, a);
    const guest = await x.join(b.gateway);
    await reader(x, guest, name);
    await guest.leave();
    await removed.entry(0);
    assert.deepEqual(stream.subscriptions(), []);
  },

  "streams: publisher closes": async (x) => {
    const { a, b, c } = x;
    const { name, stream, close } = await publisher(x, a);
    const [one, two] = [await reader(x, b, name, { arguments: { n: 1 } }), await reader(x, c, name)];
    stream.subscriptions().find((s) => s.instance.instance === b.instance).close();
    const closed = await one.closed.entry(0);
    assert.deepEqual([closed.message, closed.requestArguments, closed.server.instance, closed.stream.name], ["ServerInitiated", { n: 1 }, a.instance, name]);
    stream.push({ n: 1 });
    assert.deepEqual(await two.got(1), [{ n: 1 }]);
    close();
    assert.equal((await two.closed.entry(0)).message, "ServerInitiated");
    assert.deepEqual(one.data.all, []);
  },

  "streams: publisher leaves": async (x) => {
    const { a, b } = x;
    const host = await x.join(a.gateway, a.library);
    const { name } = await publisher(x, host);
    const r = await reader(x, b, name);
    await host.leave();
    const closed = await within(5_000, "onClosed", r.closed.entry(0));
    assert.deepEqual([closed.message, closed.server.instance], ["ServerInitiated", host.instance]);
  },

  "streams: targets": async (x) => {
    const { a, b, c, fresh, after } = x;
    const name = fresh("Twice");
    const [made, added] = [[], new Log()];
    for (const app of [a, c]) {
      const stream = await app.io.interop.createStream(name, { subscriptionAddedHandler: added.add });
      after(() => stream.close());
      made.push(stream);
    }
    const seen = new Log();
    after(b.io.interop.serverMethodAdded(({ method }) => method.name === name && seen.add(1)));
    await seen.entry(1);
    const all = await reader(x, b, name, { target: "all" });
    const one = await reader(x, b, name, { target: { instance: c.instance } });
    await added.entry(2, "all subscriptions"); // subscribe is done with the first server
    made[0].push({ from: "a" });
    made[1].push({ from: "c" });
    assert.deepEqual((await all.got(2)).map((d) => d.from).sort(), ["a", "c"]);
    assert.deepEqual(await one.got(1), [{ from: "c" }]);
    assert.deepEqual(made.map((s) => s.subscriptions().length), [1, 2]);
  },

  "streams: a burst of 1,000": async (x) => {
    const { a, b } = x;
    const { name, stream } = await publisher(x, a);
    const r = await reader(x, b, name);
    for (const n of count(1000)) stream.push({ n, text: "x".repeat(200) });
    assert.deepEqual((await r.got(1000)).map((d) => d.n), count(1000));
  },
};
