// What clients rely on when they do not wait for answers.
import { feed, method, peersInAnyOrder, scenario } from "./scenario.mjs";

// Requests are answered when they are done: what belongs to one of them keeps its order.
const each = (announcements) => ({
  why: "requests that do not wait for each other are answered in any order",
  about: (m) => String(m.request_id ?? (m.type.startsWith("methods") ? announcements : m.type)),
});

const agm = (type, more) => ({ domain: "agm", type, ...more });
const global = (type, more) => ({ domain: "global", type, ...more });

export default [
  scenario("order/start", "joins and registrations in one breath", async (s) => {
    await s.client("watcher", { join: ["agm"] });
    const a = await s.client("a");
    await a.send(global("join", { destination: "agm" }), agm("register", { methods: [method("0", "M")] }), agm("call", { server_id: a.peer, method_id: "0" }), global("join", { destination: "bus" }));
  }, { unordered: [each("a3")] }),

  scenario("order/register-unregister", "registering and unregistering in one breath", async (s) => {
    await s.client("watcher", { join: ["agm"] });
    const a = await s.client("a", { join: ["agm"] });
    await a.send(agm("register", { methods: [method("0", "M")] }), agm("unregister", { methods: ["0"] }), agm("register", { methods: [method("0", "N")] }), agm("unregister", { methods: ["0"] }), agm("unregister", { methods: ["0"] }));
  }, { unordered: [each("announcements")] }),

  scenario("order/leave-join", "leaving and joining in one breath", async (s) => {
    const watcher = await s.client("watcher", { join: ["agm"] });
    await watcher.register([method("0", "M")]);
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M")]);
    await a.send(global("leave", { destination: "agm" }), global("join", { destination: "agm" }), agm("register", { methods: [method("0", "M")] }));
  }, { unordered: [peersInAnyOrder] }),

  scenario("order/accept-push", "accepting and pushing in one breath", async (s) => {
    const publisher = await s.client("publisher", { join: ["agm"] });
    const subscriber = await s.client("subscriber", { join: ["agm"] });
    await publisher.register([feed("0", "S")]);
    await subscriber.subscribe(publisher, "0");
    const { subscription_id } = publisher.last("add-interest");
    await publisher.send(agm("accepted", { subscription_id, stream_id: "b" }), agm("publish", { stream_id: "b", data: { n: 1 } }), agm("post", { subscription_id, data: { n: 2 } }), agm("publish", { stream_id: "b", data: { n: 3 } }), agm("drop-subscription", { subscription_id, reason: "end" }), agm("publish", { stream_id: "b", data: { n: 4 } }));
  }),

  scenario("order/unsubscribe-subscribe", "unsubscribing and subscribing in one breath", async (s) => {
    const publisher = await s.client("publisher", { join: ["agm"] });
    const subscriber = await s.client("subscriber", { join: ["agm"] });
    await publisher.register([feed("0", "S")]);
    await subscriber.subscribe(publisher, "0");
    const { subscription_id } = publisher.last("add-interest");
    await publisher.accept(subscription_id, "b");
    await subscriber.send(agm("unsubscribe", { subscription_id, reason: "over" }), agm("subscribe", { server_id: publisher.peer, method_id: "0" }));
    await publisher.push("b", { n: 1 });
  }),

  scenario("order/yield-unregister-leave", "a yield, an unregistration and a leave in one breath", async (s) => {
    const server = await s.client("server", { join: ["agm"] });
    const caller = await s.client("caller", { join: ["agm"] });
    await server.register([method("0", "M")]);
    await caller.call(server, "0");
    await server.send(agm("yield", { invocation_id: server.last("invoke").invocation_id, result: { n: 1 } }), agm("unregister", { methods: ["0"] }), global("leave", { destination: "agm" }));
  }),

  scenario("order/bus", "subscribing, publishing and unsubscribing in one breath", async (s) => {
    const a = await s.client("a", { join: ["bus"] });
    await a.send({ domain: "bus", type: "subscribe", topic: "t" }, { domain: "bus", type: "publish", topic: "t", data: { n: 1 } }, { domain: "bus", type: "publish", topic: "t", data: { n: 2 } });
  }),

  scenario("order/contexts", "creating contexts in one breath", async (s) => {
    await s.client("watcher");
    const a = await s.client("a");
    await a.send(...["C1", "C2", "C1"].map((name) => global("create-context", { name, data: { name }, lifetime: "retained" })));
  }, { unordered: [{ why: "different contexts do not wait for each other", about: (m) => m.context_id }] }),
];
