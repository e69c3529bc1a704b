// Domain bus, and metrics.
import { scenario, subscriptionsInAnyOrder } from "./scenario.mjs";

async function three(s) {
  const speaker = await s.client("speaker", { join: ["bus"] });
  const listener = await s.client("listener", { join: ["bus"], identity: { application: "listener", region: "R" } });
  const other = await s.client("other", { join: ["bus"] });
  return { speaker, listener, other };
}

const unordered = { unordered: [subscriptionsInAnyOrder] };

export default [
  scenario("bus/exact", "a topic by its name", async (s) => {
    const { speaker, listener, other } = await three(s);
    await listener.listen("a.b");
    await other.listen("a");
    for (const topic of ["a.b", "a", "a.b.c", "A.B", "a.b "]) await speaker.say(topic, { topic });
  }),

  scenario("bus/patterns", "stars, greater-than signs and dots", async (s) => {
    const { speaker, listener } = await three(s);
    for (const topic of ["a.*", "a.>", "*.b", "*", ">", "a.*.c", "a*", "*b*"]) await listener.listen(topic);
    for (const topic of ["a.b", "a.b.c", "a", "a.", "x.b", "a.B-c", "a.B_9", "ab", "a..b", ".", "ä"]) await speaker.say(topic, { topic });
  }, unordered),

  scenario("bus/pattern-characters", "what means something in regular expressions is literal", async (s) => {
    const { speaker, listener } = await three(s);
    for (const topic of ["a+*", "(x)>", "[ab].*", "a|b.*", "$*^", "a\\.*"]) await listener.listen(topic);
    for (const topic of ["a+b", "aab", "(x)y", "a.b", "[ab].c", "a|b.c", "$x^", "a\\.b"]) await speaker.say(topic, { topic });
  }, unordered),

  scenario("bus/publish-pattern", "a pattern that is published to is a name", async (s) => {
    const { speaker, listener } = await three(s);
    for (const topic of ["a.*", "a.b"]) await listener.listen(topic);
    await speaker.say("a.*", { topic: "a.*" });
  }, unordered),

  scenario("bus/routing-key", "keys match if both are the same, or one is missing", async (s) => {
    const { speaker, listener } = await three(s);
    await listener.listen("t");
    await listener.listen("t", { routing_key: "k" });
    for (const routing_key of ["k", "z", undefined, null]) await speaker.say("t", { routing_key }, { routing_key });
  }, unordered),

  scenario("bus/target", "a target is part of an identity", async (s) => {
    const { speaker, listener, other } = await three(s);
    await listener.listen("t");
    await other.listen("t");
    for (const target_identity of [{ application: "listener" }, { application: "nobody" }, { application: "listener", region: "R" }, { application: "listener", region: "X" }, { missing: 1 }, {}, null, { user: "u1" }]) {
      await speaker.say("t", { target_identity }, { target_identity });
    }
  }, unordered),

  scenario("bus/target-instance", "a target by its instance", async (s) => {
    const { speaker, listener, other } = await three(s);
    await listener.listen("t");
    await other.listen("t");
    await speaker.say("t", { v: 1 }, { target_identity: { instance: listener.last("welcome").resolved_identity.instance } });
  }, unordered),

  scenario("bus/data", "data of all kinds", async (s) => {
    const { speaker, listener } = await three(s);
    await listener.listen("t");
    for (const data of [{}, { a: [1] }, "text", 7, true, [1], null, undefined, false, 0, ""]) await speaker.say("t", data);
  }),

  scenario("bus/self", "a publisher hears itself", async (s) => {
    const { speaker } = await three(s);
    await speaker.listen("t");
    await speaker.say("t", { v: 1 });
  }),

  scenario("bus/unsubscribe", "no more after unsubscribing", async (s) => {
    const { speaker, listener } = await three(s);
    await listener.listen("t");
    const { subscription_id } = listener.last("subscribed");
    await listener.listen("t");
    await listener.deaf(subscription_id);
    await speaker.say("t", { v: 1 });
    await listener.deaf(subscription_id);
    await listener.deaf("bogus");
    await listener.deaf(undefined);
    await speaker.deaf(listener.last("subscribed").subscription_id);
    await speaker.say("t", { v: 2 });
  }),

  scenario("bus/source", "the source of a subscription is the client's business", async (s) => {
    const { speaker, listener } = await three(s);
    await listener.listen("t", { source: { application: "nobody" } });
    await speaker.say("t", { v: 1 });
  }),

  scenario("bus/no-topic", "requests without a topic", async (s) => {
    const { speaker } = await three(s);
    await speaker.listen(undefined);
    await speaker.say(undefined, { v: 1 });
    await speaker.listen(7);
    await speaker.say(7, { v: 1 });
  }),

  scenario("bus/empty-topic", "an empty topic", async (s) => {
    const { speaker, listener } = await three(s);
    await listener.listen("");
    await speaker.say("", { v: 1 });
  }),

  scenario("bus/not-joined", "requests without a join", async (s) => {
    const { listener } = await three(s);
    const outside = await s.client("outside");
    await listener.listen("t");
    await outside.listen("t");
    await outside.say("t", { v: 1 });
  }),

  scenario("bus/left", "no more after leaving or closing", async (s) => {
    const { speaker, listener, other } = await three(s);
    await listener.listen("t");
    await other.listen("t");
    await listener.leave("bus");
    await speaker.say("t", { v: 1 });
    await listener.join("bus");
    await speaker.say("t", { v: 2 });
  }),

  scenario("bus/burst", "publications in one breath arrive in order", async (s) => {
    const { speaker, listener } = await three(s);
    await listener.listen("t.*");
    await speaker.send(...[1, 2, 3, 4, 5].map((n) => ({ domain: "bus", type: "publish", topic: `t.${n}`, data: { n } })));
  }),

  scenario("metrics/publish", "metrics are taken in silence", async (s) => {
    const a = await s.client("a");
    await a.join("metrics", { options: { system: "S", service: "s", instance: "i" } });
    await a.send({ domain: "metrics", type: "define", metrics: [{ name: "/x", type: "string", description: "d" }] });
    await a.send({ domain: "metrics", type: "publish", values: [{ name: "/x", value: "1", timestamp: 1 }] });
    await a.send({ domain: "metrics", type: "define" });
    await a.leave("metrics");
  }),

  scenario("metrics/options", "joins that lack options", async (s) => {
    const a = await s.client("a");
    for (const options of [undefined, {}, { system: "S" }, { system: "S", service: "s" }, { system: "", service: "", instance: "" }]) await a.join("metrics", { options });
  }),

  scenario("metrics/not-joined", "metrics without a join", async (s) => {
    const a = await s.client("a");
    await a.send({ domain: "metrics", type: "define", metrics: [] });
    await a.send({ domain: "metrics", type: "publish", values: [] });
  }),
];
