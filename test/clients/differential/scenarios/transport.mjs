// The transport and the envelope: connections, frames, request ids, sources.
import { method, scenario } from "./scenario.mjs";

const strange = ["agm", "bus", "context", "metrics", "global"];

export default [
  scenario("transport/any-path", "any path and query is the gateway", async (s) => {
    const a = await s.open("a", { path: "/gw/deep?token=1&x=%20" });
    await a.hello();
    const b = await s.open("b", { path: "/" });
    await b.hello();
  }),

  scenario("transport/subprotocol", "the first subprotocol that is offered is echoed, and no compression agreed", async (s) => {
    const a = await s.open("a", { protocols: ["gw3", "other"] });
    await a.hello();
  }),

  scenario("transport/origin-foreign", "pages of other sites are refused", async (s) => {
    await s.open("a", { headers: { Origin: "https://foreign.example" } });
    await s.open("b", { headers: { Origin: "null" } });
  }),

  scenario("transport/not-json", "text that is no JSON is answered, and the connection stays", async (s) => {
    const a = await s.open("a");
    await a.send("hello?");
    await a.send("{");
    await a.send("");
    await a.hello();
    await a.send('{"domain":"global","type":"ping"');
    await a.join("agm");
  }),

  scenario("transport/not-an-object", "JSON that is no object", async (s) => {
    const a = await s.open("a");
    for (const text of ["[1,2]", '"x"', "17", "true", "null", "{}", "[]"]) await a.send(text);
    await a.hello();
  }),

  scenario("transport/binary", "binary frames are taken, text is sent", async (s) => {
    const a = await s.open("a");
    await a.sendBinary({ domain: "global", type: "hello", identity: { application: "a" }, authentication: { method: "secret", login: "u1", secret: "s" } });
    await a.sendBinary({ domain: "global", type: "join", destination: "agm" });
  }),

  scenario("transport/large", "a call with half a megabyte", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M")]);
    await a.call(a, "0", { arguments_kv: { text: "0123456789abcdef".repeat(32_768) } });
    await a.yield(a.last("invoke").invocation_id, { result: { text: "fedcba9876543210".repeat(32_768) } });
  }),

  scenario("transport/values", "what is in a payload comes out as it was", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M")]);
    const values = { date: "#T42_DATE#1700000000000", "": "empty", "a.b": [[], {}, [null]], no: null, half: 0.5, big: 9007199254740991, small: -1e-7, huge: 1e21, text: "Zürich 𝄞 \u2028 \u0000 \"\\/", $key: true, "ключ": "значение" };
    await a.call(a, "0", { arguments_kv: values, context: values });
    await a.yield(a.last("invoke").invocation_id, { result: values });
  }),

  scenario("transport/unknown-type", "a type that a domain does not have", async (s) => {
    const a = await s.client("a", { join: ["agm", "bus"] });
    for (const domain of strange) await a.send({ domain, type: "frob" });
  }),

  scenario("transport/unknown-type-no-id", "the same without a request id", async (s) => {
    const a = await s.client("a", { join: ["agm", "bus"] });
    for (const domain of strange) await a.send({ domain, type: "frob", request_id: undefined });
  }),

  scenario("transport/no-type", "a frame without a type", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.send({ domain: "agm" });
    await a.send({ domain: "global" });
    await a.send({});
    await a.send({ domain: "agm", type: null });
    await a.send({ domain: "agm", type: 7 });
  }),

  scenario("transport/unknown-domain", "a domain that is not there", async (s) => {
    const a = await s.client("a");
    await a.send({ domain: "nodomain", type: "join" });
    await a.send({ domain: "nodomain", type: "join", request_id: undefined });
  }),

  scenario("transport/no-domain", "without a domain it is for global", async (s) => {
    const a = await s.client("a");
    await a.join("agm", { domain: undefined });
    await a.send({ type: "frob" });
  }),

  scenario("transport/request-ids", "a request id comes back as it was sent", async (s) => {
    const a = await s.open("a");
    await a.hello({ request_id: 42 });
    for (const request_id of [43, 0, -1.5, "", null, true, [1], { a: 1 }, undefined]) await a.join("agm", { request_id });
    await a.join("zzz", { request_id: 44 });
    await a.register([method("0", "M")], { request_id: 45 });
    await a.call(a, "0", { request_id: 46 });
    await a.yield(a.last("invoke").invocation_id, { result: { ok: true } });
  }),

  scenario("transport/no-request-id", "replies without a request id say null", async (s) => {
    const a = await s.client("a", { join: ["agm", "bus"] });
    const none = { request_id: undefined };
    await a.register([method("0", "M")], none);
    await a.unregister(["9"], none);
    await a.listen("t", none);
    await a.create("C", { a: 1 }, none);
    await a.update(a.last("context-created").context_id, { added: { b: 1 } }, none);
    await a.join("zzz", none);
    await a.call(a, "0", none);
    await a.yield(a.last("invoke").invocation_id, { result: 1 });
  }),

  scenario("transport/same-request-id", "a request id may be used again", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    const b = await s.client("b", { join: ["agm"] });
    await a.register([method("0", "M")], { request_id: "1" });
    await b.call(a, "0", { request_id: "1", arguments_kv: { n: 1 } });
    const first = a.last("invoke").invocation_id;
    await b.call(a, "0", { request_id: "1", arguments_kv: { n: 2 } });
    await a.yield(a.last("invoke").invocation_id, { result: { n: 2 } });
    await a.yield(first, { result: { n: 1 } });
  }),

  scenario("transport/more-fields", "fields that nobody knows are ignored", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M")], { extra: { x: 1 }, __interopIOTracePropagationInfo: { traceparent: "00-1-2-01" } });
    await a.call(a, "0", { extra: 1, arguments_kv: { __interopIOTracePropagationInfo: { traceparent: "00-1-2-01" } } });
    await a.yield(a.last("invoke").invocation_id, { result: { ok: 1 }, extra: 1 });
  }),

  scenario("transport/peer-of-another", "a peer id of another connection is refused", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    const b = await s.client("b", { join: ["agm"] });
    await a.register([method("1", "X")], { peer_id: b.peer });
    await a.join("bus", { peer_id: b.peer });
    await a.create("C", {}, { peer_id: b.peer });
    await a.call(b, "1", { peer_id: b.peer });
  }),

  scenario("transport/peer-unknown", "a peer id that nobody has, and none", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    for (const peer_id of ["bogus", undefined]) {
      await a.join("agm", { peer_id });
      await a.leave("agm", { peer_id });
      await a.register([method("0", "M")], { peer_id });
      await a.call(a, "0", { peer_id });
      await a.create("C", {}, { peer_id });
      await a.listen("t", { peer_id });
      await a.send({ domain: "bus", type: "publish", topic: "t", data: {}, peer_id });
      await a.createToken({ peer_id });
    }
  }),

  scenario("transport/before-hello", "requests of a connection that has not said hello", async (s) => {
    const a = await s.open("a");
    await a.join("agm");
    await a.register([method("0", "M")]);
    await a.create("C", {});
    await a.listen("t");
    await a.send({ domain: "bus", type: "publish", topic: "t", data: {} });
    await a.send({ domain: "metrics", type: "define", metrics: [] });
    await a.createToken();
    await a.hello();
  }),

  scenario("transport/ping", "a ping is not answered", async (s) => {
    const a = await s.open("a");
    await a.send({ type: "ping", request_id: undefined });
    await a.hello();
    await a.send({ type: "ping", request_id: undefined, peer_id: undefined });
    await a.send({ domain: "global", type: "ping" });
    await a.join("agm");
  }),
];
