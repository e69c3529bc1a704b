// Request and response: one app offers methods, another calls them.
import assert from "node:assert/strict";
import { within } from "../../fabric.mjs";
import { Log } from "../apps.mjs";

/** refused is the error of a call that must fail. */
const refused = (promise) => promise.then((r) => assert.fail(`it answered ${JSON.stringify(r.returned)}`), (e) => e);

const at = (app) => ({ instance: app.instance });

export const methods = {
  "methods: invoke by name": async ({ a, b, offer, fresh }) => {
    const name = fresh("Add");
    let heard;
    await offer(a, { name, accepts: "int a, int b", returns: "int sum" }, (args, caller) => {
      heard = caller;
      return { sum: args.a + args.b };
    });
    const r = await b.io.interop.invoke(name, { a: 1, b: 2 });
    assert.deepEqual([r.returned, r.status, r.called_with], [{ sum: 3 }, 0, { a: 1, b: 2 }]);
    assert.deepEqual([r.executed_by.application, r.executed_by.instance, r.executed_by.machine], [a.application, a.instance, a.identity.machine]);
    assert.deepEqual([heard.application, heard.instance, heard.machine, heard.user], [b.application, b.instance, b.identity.machine, b.identity.user]);
    assert.equal(r.all_return_values.length, 1);
    assert.deepEqual((await b.io.interop.invoke(name.toUpperCase(), { a: 20, b: 22 })).returned, { sum: 42 }, "whatever the case");
  },

  "methods: values arrive as they left": async ({ a, b, offer, fresh }) => {
    const name = fresh("Echo");
    await offer(a, name, (args) => args);
    const value = {
      text: "Zürich 𝄞 \"\\\n\u0000", half: 0.5, tiny: 1e-300, big: 2 ** 53, low: -(2 ** 53), zero: 0, negative: -1.25, yes: true, no: false, none: null,
      list: [1, [], {}, [null, "x"]], deep: { a: { b: { c: { d: [{ e: 1 }] } } } }, "": "empty", "a.b": "dotted", "ü": 1, at: new Date(1763715627123), long: "x".repeat(100_000),
    };
    assert.deepEqual((await b.io.interop.invoke(name, value)).returned, value);
    assert.deepEqual((await b.io.interop.invoke(name)).returned, {}, "no arguments");
    for (const [returned, want] of [[7, { _value: 7 }], ["x", { _value: "x" }], [[1, 2], { _value: [1, 2] }], [undefined, {}], [null, {}], [{}, {}], [Promise.resolve({ late: true }), { late: true }]]) {
      const other = fresh("Give");
      await offer(a, other, () => returned);
      assert.deepEqual((await b.io.interop.invoke(other)).returned, want);
    }
  },

  "methods: definition": async ({ a, b, offer, fresh }) => {
    const definition = { name: fresh("Quote"), accepts: "string isin, double? size", returns: "composite: {double bid} quote", displayName: "Quote ü", description: "a price", objectTypes: ["Instrument", "Bond"], version: 7, flags: { desk: "rates", deep: { x: [1] } } };
    await offer(a, definition, () => ({}));
    for (const app of [a, b]) {
      const found = app.io.interop.methods({ name: definition.name });
      assert.equal(found.length, 1);
      for (const key of Object.keys(definition)) assert.deepEqual(found[0][key], definition[key], key);
      assert.equal(found[0].supportsStreaming, false);
      assert.deepEqual(found[0].getServers().map((s) => s.instance), [a.instance]);
    }
    assert.equal(b.io.interop.methods({ objectTypes: ["Bond"], name: definition.name }).length, 1);
    assert.equal(b.io.interop.methods({ objectTypes: ["Equity"], name: definition.name }).length, 0);
    assert.ok(b.io.interop.methodsForInstance(at(a)).some((m) => m.name === definition.name));
  },

  "methods: target best": async ({ a, b, join, offer, fresh }) => {
    const name = fresh("Best");
    const near = await join(b.gateway);
    await offer(a, name, () => ({ by: "a" }));
    await offer(near, name, () => ({ by: "near" }));
    if (a.gateway === b.gateway) {
      assert.deepEqual((await b.io.interop.invoke(name)).returned, { by: "a" }, "the first");
      return;
    }
    assert.deepEqual((await b.io.interop.invoke(name, {}, "best")).returned, { by: "near" }, "its own machine first");
    const gone = new Log();
    b.io.interop.serverRemoved((s) => gone.add(s.instance));
    await near.leave();
    await gone.until("it is gone", (all) => all.includes(near.instance));
    assert.deepEqual((await b.io.interop.invoke(name, {}, "best")).returned, { by: "a" });
  },

  "methods: targets all, skipMine, instances": async ({ a, b, c, offer, fresh }) => {
    const name = fresh("Who");
    for (const app of [a, b, c]) await offer(app, name, () => ({ by: app.instance }));
    const by = async (target) => (await b.io.interop.invoke(name, {}, target)).all_return_values.map((v) => v.returned.by).sort();
    const sorted = (...apps) => apps.map((app) => app.instance).sort();
    assert.deepEqual(await by("all"), sorted(a, b, c));
    assert.deepEqual(await by("skipMine"), sorted(a, c));
    assert.deepEqual(await by(at(a)), sorted(a));
    assert.deepEqual(await by({ application: c.application }), sorted(c));
    assert.deepEqual(await by({ application: a.application.toUpperCase() }), sorted(a), "whatever the case");
    assert.deepEqual(await by([at(a), at(c)]), sorted(a, c));
    assert.deepEqual(await by(b.io.interop.servers().find((s) => s.instance === a.instance)), sorted(a));
    const e = await refused(b.io.interop.invoke(name, {}, { application: "nobody" }, { waitTimeoutMs: 0 }));
    assert.match(e.message, new RegExp(`^Can not find a method matching "${name}" with server filter {"application":"nobody"}`));
  },

  "methods: errors and their texts": async ({ a, b, offer, fresh }) => {
    const name = fresh("Fail");
    await offer(a, name, ({ how }) => {
      if (how === "reject") return Promise.reject(new Error("out of toner"));
      if (how === "string") throw "just text";
      throw new Error("out of paper: ünd \"so\"");
    });
    for (const [how, text] of [["throw", "out of paper: ünd \"so\""], ["reject", "out of toner"], ["string", "just text"]]) {
      const e = await refused(b.io.interop.invoke(name, { how }));
      assert.deepEqual([e.message, e.status, e.all_errors[0].message, e.all_return_values], [text, 1, text, []]);
      assert.equal(e.executed_by.instance, a.instance);
    }
    const e = await refused(b.io.interop.invoke(fresh("Nobody"), {}, "best", { waitTimeoutMs: 0 }));
    assert.match(e.message, /^Can not find a method matching "Nobody.*" with server filter "best"/);
  },

  "methods: asynchronous handlers": async ({ a, b, fresh, after, sees }) => {
    const name = fresh("Later");
    await a.io.interop.registerAsync(name, ({ fail }, caller, success, error) => setImmediate(() => (fail ? error("no luck") : success({ for: caller.application }))));
    after(() => a.io.interop.unregister(name));
    await sees(b, name);
    assert.deepEqual((await b.io.interop.invoke(name)).returned, { for: b.application });
    assert.equal((await refused(b.io.interop.invoke(name, { fail: true }))).message, "no luck");
  },

  "methods: one of many servers fails": async ({ a, b, c, offer, fresh }) => {
    const name = fresh("Some");
    await offer(a, name, () => ({ ok: true }));
    await offer(c, name, () => { throw new Error("not me"); });
    const r = await b.io.interop.invoke(name, {}, "all");
    assert.deepEqual(r.all_return_values.map((v) => [v.executed_by.instance, v.returned]), [[a.instance, { ok: true }]]);
    assert.deepEqual(r.all_errors.map((e) => [e.executed_by.instance, e.message]), [[c.instance, "not me"]]);
  },

  "methods: response timeout": async ({ a, b, offer, fresh }) => {
    const name = fresh("Slow");
    let answer;
    await offer(a, name, ({ wait }) => (wait ? new Promise((r) => (answer = r)) : { quick: true }));
    const e = await refused(b.io.interop.invoke(name, { wait: true }, "best", { methodResponseTimeoutMs: 100 }));
    assert.match(e.message, new RegExp(`^Invocation timeout \\(100 ms\\) reached for method name: ${name}`));
    answer({ late: true });
    assert.deepEqual((await b.io.interop.invoke(name)).returned, { quick: true }, "a late answer is nobody's");
  },

  "methods: server leaves mid-call": async ({ a, b, join, offer, fresh }) => {
    const name = fresh("Leave");
    const server = await join(a.gateway, a.library);
    const started = new Promise((resolve) => {
      server.started = resolve;
    });
    await offer(server, name, () => new Promise(() => server.started()));
    const call = refused(b.io.interop.invoke(name));
    await within(5_000, "the handler", started);
    await server.leave();
    const e = await within(2_000, "the call to end", call);
    // When the error and the server's end come in one read, @glue42 5.13 stumbles over the missing server.
    assert.match(e.message, b.library.name.startsWith("@glue42") ? /^Peer has left while waiting for result$|reading 'methods'/ : /^Peer has left while waiting for result$/);
  },

  "methods: a call waits for its method": async ({ a, b, fresh, after }) => {
    const name = fresh("Soon");
    const call = b.io.interop.invoke(name, { n: 1 });
    const heard = new Promise((resolve) => b.io.interop.waitForMethod(name).then(resolve));
    await a.io.interop.register(name, ({ n }) => ({ n: n + 1 }));
    after(() => a.io.interop.unregister(name));
    assert.equal((await within(5_000, "waitForMethod", heard)).name, name);
    assert.deepEqual((await within(5_000, "the call", call)).returned, { n: 2 });
  },

  "methods: calls in flight": async ({ a, b, offer, fresh }) => {
    const name = fresh("Many");
    await offer(a, name, async ({ n }) => {
      for (let turns = (n * 7) % 5; turns > 0; turns--) await new Promise(setImmediate);
      return { n };
    });
    const got = await Promise.all(Array.from({ length: 200 }, (_, n) => b.io.interop.invoke(name, { n })));
    got.forEach((r, n) => assert.deepEqual(r.returned, { n }));
  },

  "methods: both ways at once": async ({ a, b, offer, fresh }) => {
    const [ping, pong] = [fresh("Ping"), fresh("Pong")];
    await offer(a, ping, async ({ n }) => (n === 0 ? { end: "a" } : (await a.io.interop.invoke(pong, { n: n - 1 })).returned));
    await offer(b, pong, async ({ n }) => (n === 0 ? { end: "b" } : (await b.io.interop.invoke(ping, { n: n - 1 })).returned));
    assert.deepEqual((await b.io.interop.invoke(ping, { n: 9 })).returned, { end: "b" });
  },

  "methods: own methods": async ({ a, offer, fresh }) => {
    const name = fresh("Mine");
    await offer(a, name, (_, caller) => ({ own: caller.instance === a.instance }));
    assert.deepEqual((await a.io.interop.invoke(name)).returned, { own: true });
    await assert.rejects(a.io.interop.register(name, () => ({})), (e) => new RegExp(`A method with the name "${name}" already exists`).test(e.message ?? e));
  },

  "methods: events": async ({ a, b, join, fresh }) => {
    const log = new Log();
    const name = fresh("Event");
    const server = await join(a.gateway, a.library, {}, false);
    const mine = (s) => s.instance === server.instance;
    const stop = [
      b.io.interop.serverAdded((s) => mine(s) && log.add("serverAdded")),
      b.io.interop.methodAdded((m) => m.name === name && log.add("methodAdded")),
      b.io.interop.serverMethodAdded(({ server: s, method }) => mine(s) && method.name === name && log.add("serverMethodAdded")),
      b.io.interop.serverMethodRemoved(({ server: s, method }) => mine(s) && method.name === name && log.add("serverMethodRemoved")),
      b.io.interop.methodRemoved((m) => m.name === name && log.add("methodRemoved")),
      b.io.interop.serverRemoved((s) => mine(s) && log.add("serverRemoved")),
    ];
    const so = async (...want) => assert.deepEqual([...(await log.until(want.join(), (all) => all.length >= want.length && all))].sort(), want.sort());
    await server.io.interop.register(name, () => ({}));
    await so("serverAdded", "methodAdded", "serverMethodAdded");
    assert.deepEqual(b.io.interop.servers({ name }).map((s) => s.instance), [server.instance]);
    await server.io.interop.unregister(name);
    await so("serverAdded", "methodAdded", "serverMethodAdded", "serverMethodRemoved", "methodRemoved");
    assert.deepEqual(b.io.interop.methods({ name }), []);
    await server.io.interop.register(name, () => ({}));
    await log.until("it is back", (all) => all.length >= 7);
    await server.leave();
    await log.until("it has left", (all) => all.includes("serverRemoved"));
    assert.deepEqual(log.all.slice(5).sort(), ["methodAdded", "methodRemoved", "serverMethodAdded", "serverMethodRemoved", "serverRemoved"]);
    assert.deepEqual([b.io.interop.methods({ name }), b.io.interop.servers().filter(mine)], [[], []]);
    stop.forEach((f) => f());
  },
};
