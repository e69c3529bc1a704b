// Domain agm: streams, their subscriptions and branches.
import { endingsInAnyOrder, feed, method, scenario, subscriptionsInAnyOrder } from "./scenario.mjs";

/** streaming is a publisher with a stream and a subscriber, and ways to say what they do. */
async function streaming(s, ...more) {
  const publisher = await s.client("publisher", { join: ["agm"] });
  const subscriber = await s.client("subscriber", { join: ["agm"] });
  await publisher.register([feed("0", "S"), ...more]);
  const asked = () => publisher.last("add-interest").subscription_id;
  /** accepted is the id of a new subscription on a branch. */
  const accepted = async (branch = "b0", client = subscriber) => {
    await client.subscribe(publisher, "0");
    const id = asked();
    await publisher.accept(id, branch);
    return id;
  };
  return { publisher, subscriber, asked, accepted };
}

export default [
  scenario("stream/accept", "asked, accepted, subscribed, and data", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0", { arguments_kv: { q: 1 }, flags: { f: 1 }, context: { k: 1 } });
    await publisher.push("b0", { early: true });
    await publisher.accept(asked(), "b0");
    await publisher.push("b0", { v: 1 });
    await publisher.push("b0", { v: 2 }, { sequence: 5, snapshot: true });
  }),

  scenario("stream/arguments-by-position", "arguments of the other kind, and of both", async (s) => {
    const { publisher, subscriber } = await streaming(s);
    await subscriber.subscribe(publisher, "0", { arguments: [1, "x"] });
    await subscriber.subscribe(publisher, "0", { arguments: [1], arguments_kv: { a: 1 } });
  }),

  scenario("stream/reject", "a publisher refuses", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0");
    const id = asked();
    await publisher.fail(id, { reason_uri: "com.tick42.agm.errors.subscription.failure", reason: "Subscription rejected by user. no", context: { z: 1 } });
    await publisher.accept(id, "b0");
    await publisher.push("b0", { v: 1 });
    await publisher.fail(id);
  }),

  scenario("stream/accept-incomplete", "accepting without a stream id, or without a subscription", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0");
    await publisher.accept(asked(), undefined);
    await publisher.accept("bogus", "b0");
    await publisher.accept(undefined, "b0");
    await publisher.accept(asked(), null);
    await publisher.accept(asked(), "");
    await publisher.push("", { v: 1 });
  }),

  scenario("stream/accept-numeric", "a stream id may be a number", async (s) => {
    const { publisher, accepted } = await streaming(s);
    await accepted(7);
    await publisher.push(7, { v: 1 });
    await publisher.push("7", { v: 2 });
  }),

  scenario("stream/accept-twice-same", "accepting again on the same branch", async (s) => {
    const { publisher, accepted } = await streaming(s);
    const id = await accepted();
    await publisher.accept(id, "b0");
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/accept-twice-other", "accepting again on another branch", async (s) => {
    const { publisher, accepted } = await streaming(s);
    const id = await accepted();
    await publisher.accept(id, "b1");
    await publisher.push("b0", { on: "b0" });
    await publisher.push("b1", { on: "b1" });
  }),

  scenario("stream/accept-of-another", "somebody else accepts", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0");
    await subscriber.accept(asked(), "b0");
    await subscriber.push("b0", { forged: true });
    await publisher.accept(asked(), "b0");
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/branches", "each branch has its subscriptions", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    const other = await s.client("other", { join: ["agm"] });
    await accepted("b0", subscriber);
    await accepted("b1", other);
    await accepted("b1", subscriber);
    await publisher.push("b0", { on: 0 });
    await publisher.push("b1", { on: 1 });
    await publisher.push("nobody", { on: 2 });
  }, { unordered: [subscriptionsInAnyOrder] }),

  scenario("stream/burst", "pushes in one breath arrive in order, branches as sent", async (s) => {
    const { publisher, accepted } = await streaming(s);
    await accepted("b0");
    await accepted("b1");
    await publisher.send(...[0, 1, 0, 1, 1, 0].map((b, n) => ({ domain: "agm", type: "publish", stream_id: `b${b}`, data: { n } })));
  }),

  scenario("stream/post", "private data", async (s) => {
    const { publisher, accepted } = await streaming(s);
    const first = await accepted();
    const second = await accepted();
    await publisher.post(second, { v: 2 });
    await publisher.post(first, { v: 1 }, { sequence: 9, snapshot: false });
    await publisher.post("bogus", { v: 0 });
    await publisher.post(undefined, { v: 0 });
  }),

  scenario("stream/post-pending", "private data before the subscription is accepted", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0");
    await publisher.post(asked(), { v: 1 });
    await publisher.accept(asked(), "b0");
  }),

  scenario("stream/post-of-another", "private data and pushes from a peer that is not the publisher", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    const thief = await s.client("thief", { join: ["agm"] });
    await thief.register([feed("0", "T")]);
    const id = await accepted();
    await thief.post(id, { forged: true });
    await thief.push("b0", { forged: true });
    await thief.drop(id);
    await subscriber.post(id, { forged: true });
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/data", "data of all kinds", async (s) => {
    const { publisher, accepted } = await streaming(s);
    const id = await accepted();
    for (const data of [{}, null, undefined, "text", 0, false, [1]]) await publisher.push("b0", data);
    await publisher.post(id, null);
  }),

  scenario("stream/two-subscribers", "all get the same", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    const other = await s.client("other", { join: ["agm"] });
    await accepted("b0", subscriber);
    await accepted("b0", other);
    await publisher.push("b0", { v: 1 });
    await other.leave("agm");
    await publisher.push("b0", { v: 2 });
  }),

  scenario("stream/subscribe-self", "a peer may subscribe to its own stream", async (s) => {
    const { publisher, accepted } = await streaming(s);
    const id = await accepted("b0", publisher);
    await publisher.push("b0", { v: 1 });
    await publisher.post(id, { v: 2 });
    await publisher.unsubscribe(id);
  }, { unordered: [{ why: "who is both sides of a subscription hears of its end twice", about: (m) => (["remove-interest", "success"].includes(m.type) ? m.type : undefined) }] }),

  scenario("stream/subscribe-unknown", "streams and publishers that are not there", async (s) => {
    const { publisher, subscriber } = await streaming(s);
    await subscriber.subscribe(publisher, "nope");
    await subscriber.subscribe({ peer: "p-nope" }, "0");
    await subscriber.subscribe(undefined, "0");
    await subscriber.subscribe(publisher, undefined);
  }),

  scenario("stream/subscribe-method", "the gateway does not check that a method is not subscribed to", async (s) => {
    const { publisher, subscriber } = await streaming(s, method("1", "M"));
    await subscriber.subscribe(publisher, "1");
  }),

  scenario("stream/one-branch-of-two-streams", "one stream id for subscriptions of two streams", async (s) => {
    const { publisher, subscriber, asked, accepted } = await streaming(s, feed("1", "T"));
    await accepted("b0");
    await subscriber.subscribe(publisher, "1");
    await publisher.accept(asked(), "b0");
    await publisher.push("b0", { v: 1 });
    await publisher.unregister(["0"]);
    await publisher.push("b0", { v: 2 });
  }, { unordered: [subscriptionsInAnyOrder] }),

  scenario("stream/drop", "the publisher ends a subscription", async (s) => {
    const { publisher, accepted } = await streaming(s);
    const id = await accepted();
    await publisher.drop(id, { reason_uri: "my.uri", reason: "enough" });
    await publisher.drop(id);
    await publisher.push("b0", { v: 1 });
    await publisher.post(id, { v: 2 });
    await publisher.drop(await accepted(), { reason: undefined });
  }),

  scenario("stream/drop-early", "ending one that was not accepted, or is not there", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0");
    await publisher.drop(asked());
    await publisher.accept(asked(), "b0");
    await publisher.drop("bogus");
    await publisher.drop(undefined);
  }),

  scenario("stream/unsubscribe", "the subscriber ends a subscription", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    const id = await accepted();
    await subscriber.unsubscribe(id);
    await publisher.push("b0", { v: 1 });
    await publisher.post(id, { v: 2 });
    await subscriber.unsubscribe(id);
    await subscriber.unsubscribe(await accepted(), { reason_uri: "my.uri", reason: "own" });
    await subscriber.unsubscribe(await accepted(), { reason_uri: undefined, reason: undefined });
  }),

  scenario("stream/unsubscribe-unknown", "subscriptions that are not there, or of somebody else", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    const id = await accepted();
    await subscriber.unsubscribe("bogus");
    await subscriber.unsubscribe(undefined);
    await publisher.unsubscribe(id);
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/unsubscribe-pending", "ending one before it was accepted", async (s) => {
    const { publisher, subscriber, asked } = await streaming(s);
    await subscriber.subscribe(publisher, "0");
    await subscriber.unsubscribe(asked());
    await publisher.accept(asked(), "b0");
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/again", "subscribing again after an end", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    await subscriber.unsubscribe(await accepted());
    await accepted();
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/unregister", "a stream is unregistered with subscriptions", async (s) => {
    const { publisher, subscriber, asked, accepted } = await streaming(s);
    await accepted();
    await subscriber.subscribe(publisher, "0");
    await publisher.unregister(["0"]);
    await publisher.accept(asked(), "b0");
    await publisher.push("b0", { v: 1 });
  }, { unordered: [endingsInAnyOrder] }),

  scenario("stream/replace", "a stream's id is registered again with subscriptions", async (s) => {
    const { publisher, accepted } = await streaming(s);
    await accepted();
    await publisher.register([feed("0", "S", { description: "new" })]);
    await publisher.push("b0", { v: 1 });
  }),

  scenario("stream/publisher-left", "the publisher leaves", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    await accepted();
    await subscriber.subscribe(publisher, "0");
    await publisher.leave("agm", { reason_uri: "my.uri", reason: "bye" });
    await publisher.push("b0", { v: 1 });
  }, { unordered: [endingsInAnyOrder] }),

  scenario("stream/publisher-closed", "the publisher closes its connection", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    const id = await accepted();
    await publisher.close([subscriber, "peer-removed"]);
    await subscriber.unsubscribe(id);
  }),

  scenario("stream/subscriber-left", "the subscriber leaves", async (s) => {
    const { publisher, subscriber, accepted } = await streaming(s);
    await accepted();
    await subscriber.subscribe(publisher, "0");
    await subscriber.leave("agm", { reason_uri: "my.uri", reason: "bye" });
    await publisher.push("b0", { v: 1 });
  }, { unordered: [endingsInAnyOrder] }),

  scenario("stream/subscriber-closed", "the subscriber closes its connection", async (s) => {
    const { publisher, subscriber, asked, accepted } = await streaming(s);
    await accepted();
    await subscriber.subscribe(publisher, "0");
    const pending = asked();
    await subscriber.close([publisher, "peer-removed"]);
    await publisher.accept(pending, "b0");
    await publisher.push("b0", { v: 1 });
  }, { unordered: [endingsInAnyOrder] }),
];
