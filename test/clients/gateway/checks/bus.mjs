// The bus: fire and forget by topic.
import assert from "node:assert/strict";
import { Log } from "../apps.mjs";
import { settle } from "./contexts.mjs";

/** hear subscribes, and collects {data, topic, source}. */
async function hear({ after }, app, topic, options) {
  const log = new Log();
  const subscription = await app.io.bus.subscribe(topic, (data, at, source) => log.add({ data, topic: at, source }), options);
  after(() => app.left || subscription.unsubscribe());
  const got = (n) => log.until(`${n} messages on ${topic}`, (all) => all.length >= n && all.map((m) => m.data));
  return { log, got, stop: () => subscription.unsubscribe() };
}

/** spread publishes to topic until a subscription on it, made after others of the app, has spread: then they have too. */
async function spread(x, publisher, app) {
  const topic = x.fresh("barrier").replaceAll(".", "_");
  const { log, stop } = await hear(x, app, topic);
  const again = setInterval(() => publisher.io.bus.publish(topic, { barrier: true }), 10);
  await log.entry(0, "the barrier").finally(() => clearInterval(again));
  await stop();
}

const topic = ({ fresh }, name) => fresh(name).replace(/\./g, "_");

export const bus = {
  "bus: publish and subscribe": async (x) => {
    const { a, b, c } = x;
    const t = topic(x, "fills");
    const heard = await Promise.all([hear(x, b, t), hear(x, c, t), hear(x, a, t)]);
    await Promise.all([spread(x, a, b), spread(x, a, c)]);
    const items = Array.from({ length: 100 }, (_, n) => ({ n, text: "ü", deep: { l: [null, n / 2] } }));
    for (const item of items) a.io.bus.publish(t, item);
    for (const h of heard) assert.deepEqual(await h.got(items.length), items);
    const { topic: at, source } = heard[0].log.all[0];
    assert.equal(at, t);
    assert.deepEqual([source.application, source.instance, source.machine], [a.application, a.instance, a.identity.machine]);
  },

  "bus: wildcards": async (x) => {
    const { a, b } = x;
    const t = topic(x, "w");
    const of = {};
    for (const pattern of [`${t}.a.b`, `${t}.*.b`, `${t}.a.*`, `${t}.>`, `${t}.a.>`, `${t}.a.b*`, "*.end"]) of[pattern] = await hear(x, b, pattern);
    await spread(x, a, b);
    const topics = ["a.b", "x.b", "a.c", "a.b.c", "a", "a.bcd", "a.B-c"];
    for (const name of topics) a.io.bus.publish(`${t}.${name}`, { name });
    a.io.bus.publish(`${t}.end`, { name: "end" });
    a.io.bus.publish(`${t}end.end`, { name: "end" });
    const want = {
      [`${t}.a.b`]: ["a.b"],
      [`${t}.*.b`]: ["a.b", "x.b"],
      [`${t}.a.*`]: ["a.b", "a.c", "a.bcd"],
      [`${t}.>`]: [...topics, "end"],
      [`${t}.a.>`]: ["a.b", "a.c", "a.b.c", "a.bcd", "a.B-c"],
      [`${t}.a.b*`]: ["a.bcd"],
    };
    await of["*.end"].got(2);
    for (const [pattern, names] of Object.entries(want)) await of[pattern].got(names.length);
    for (const [pattern, names] of Object.entries(want)) assert.deepEqual(of[pattern].log.all.map((m) => m.data.name), names, pattern);
  },

  "bus: routing keys": async (x) => {
    const { a, b } = x;
    const t = topic(x, "keys");
    const [any, one, two] = [await hear(x, b, t), await hear(x, b, t, { routingKey: "one" }), await hear(x, b, t, { routingKey: "two" })];
    await spread(x, a, b);
    a.io.bus.publish(t, { n: 1 }, { routingKey: "one" });
    a.io.bus.publish(t, { n: 2 }, { routingKey: "two" });
    a.io.bus.publish(t, { n: 3 }, { routingKey: "ü other" });
    a.io.bus.publish(t, { n: 4 });
    assert.deepEqual(await any.got(4), [{ n: 1 }, { n: 2 }, { n: 3 }, { n: 4 }]);
    assert.deepEqual(await one.got(2), [{ n: 1 }, { n: 4 }]);
    assert.deepEqual(await two.got(2), [{ n: 2 }, { n: 4 }]);
  },

  "bus: targets": async (x) => {
    const { a, b, c } = x;
    const t = topic(x, "targets");
    const [at, other] = [await hear(x, b, t), await hear(x, c, t)];
    const [from, nobody] = [await hear(x, b, t, { target: { application: a.application } }), await hear(x, b, t, { target: { application: "nobody" } })];
    await Promise.all([spread(x, a, b), spread(x, a, c)]);
    a.io.bus.publish(t, { n: 1 }, { target: { application: b.application } });
    a.io.bus.publish(t, { n: 2 }, { target: { instance: c.instance } });
    a.io.bus.publish(t, { n: 3 }, { target: { application: b.application, instance: c.instance } });
    a.io.bus.publish(t, { n: 4 });
    assert.deepEqual(await at.got(2), [{ n: 1 }, { n: 4 }]);
    assert.deepEqual(await other.got(2), [{ n: 2 }, { n: 4 }]);
    assert.deepEqual(await from.got(2), [{ n: 1 }, { n: 4 }]);
    assert.deepEqual(nobody.log.all, []);
  },

  "bus: unsubscribe": async (x) => {
    const { a, b } = x;
    const t = topic(x, "quiet");
    const [stays, goes] = [await hear(x, b, t), await hear(x, b, t)];
    await spread(x, a, b);
    a.io.bus.publish(t, { n: 1 });
    await Promise.all([stays.got(1), goes.got(1)]);
    goes.stop();
    await settle(b);
    a.io.bus.publish(t, { n: 2 });
    await stays.got(2);
    assert.equal(goes.log.all.length, 1);
  },
};
