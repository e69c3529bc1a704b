// Domain agm: methods, calls and their outcomes.
import { endingsInAnyOrder, feed, method, scenario } from "./scenario.mjs";

/** two is a server, which has joined and registered methods, and a client of it. */
async function two(s, ...methods) {
  const server = await s.client("server", { join: ["agm"] });
  const caller = await s.client("caller", { join: ["agm"] });
  if (methods.length > 0) await server.register(methods);
  return { server, caller, invoked: () => server.last("invoke").invocation_id };
}

export default [
  scenario("register/definitions", "definitions reach consumers as they are", async (s) => {
    const { server } = await two(s);
    const full = { display_name: "D", description: "text", version: 2, object_types: ["Instrument"], input_signature: "int x, string? y", result_signature: "int sum", extra: { z: [1] } };
    await server.register([method("0", "M"), feed("1", "S", full), method("2", "N", { flags: { metadata: { a: 1 }, streaming: false } })]);
    await s.client("late", { join: ["agm"] });
  }),

  scenario("register/numeric-id", "an id may be a number", async (s) => {
    const { server, caller, invoked } = await two(s, method(7, "M"));
    await caller.call(server, 7);
    await server.yield(invoked(), { result: { n: 7 } });
    await caller.call(server, "7");
    await server.unregister(["7"]);
    await server.unregister([7]);
  }),

  scenario("register/no-name", "definitions that lack something", async (s) => {
    const { server } = await two(s);
    await server.register([{ id: "0" }]);
    await server.register([{ name: "NoId", flags: {} }]);
    await server.register([{ id: "1", name: "NoFlags" }]);
    await server.register([{ id: "2", name: "", flags: {} }]);
    await server.register([{}]);
  }),

  scenario("register/no-object", "definitions that are no objects", async (s) => {
    const { server } = await two(s);
    await server.register(["M"]);
    await server.register([null]);
    await server.register([7]);
    await server.register("M");
    await server.register({ id: "0", name: "M" });
  }),

  scenario("register/empty", "an empty list, and none", async (s) => {
    const { server } = await two(s);
    await server.register([]);
    await server.register(undefined);
    await server.register(null);
    await server.unregister([]);
  }),

  scenario("register/replace", "registering an id again replaces the method", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await server.register([method("0", "Other", { description: "new" })]);
    await caller.call(server, "0");
    await server.yield(invoked(), { result: { ok: true } });
    await s.client("late", { join: ["agm"] });
  }),

  scenario("register/same-again", "registering the same again", async (s) => {
    const { server } = await two(s, method("0", "M"));
    await server.register([method("0", "M")]);
    await server.unregister(["0"]);
    await server.register([method("1", "M")]);
  }),

  scenario("register/one-name-two-ids", "one name under two ids of one peer", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await server.register([method("1", "M")]);
    await caller.call(server, "1");
    await server.unregister(["0"]);
    await server.register([method("2", "M")]);
    await caller.call(server, "2");
    await server.yield(invoked(), { result: { by: 2 } });
  }),

  scenario("register/one-name-two-ids-at-once", "the same in one request", async (s) => {
    const { server } = await two(s);
    await server.register([method("0", "M"), method("1", "M")]);
  }),

  scenario("register/case", "names that differ in case", async (s) => {
    const { server, caller } = await two(s, method("0", "Sum"));
    await server.register([method("1", "sum")]);
    await caller.call(server, "1");
  }),

  scenario("register/method-and-stream", "a method and a stream of one name", async (s) => {
    const { server, caller } = await two(s, method("0", "Quotes"), feed("1", "Quotes"));
    await caller.call(server, "0");
    await caller.subscribe(server, "1");
  }),

  scenario("register/two-signatures", "one name with two signatures", async (s) => {
    const { server, caller } = await two(s, method("0", "Sum", { input_signature: "int a" }), method("1", "Sum", { input_signature: "double a" }));
    await caller.call(server, "1");
  }),

  scenario("register/two-servers", "one name at two peers", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.register([method("0", "M")]);
    await caller.call(server, "0");
    await server.yield(invoked(), { result: { by: "server" } });
    await server.call(caller, "0");
    await caller.yield(caller.last("invoke").invocation_id, { result: { by: "caller" } });
  }),

  scenario("register/odd-names", "names of all kinds", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "T42.Demo ü/*>"), method("1", " "), method("2", "n".repeat(200)));
    await caller.call(server, "0");
    await server.yield(invoked(), { result: {} });
  }),

  scenario("register/long-name", "a name that is very long", async (s) => {
    const { server } = await two(s);
    await server.register([method("0", "n".repeat(300))]);
  }),

  scenario("register/not-joined", "registering without a join", async (s) => {
    const { server } = await two(s);
    await server.leave("agm");
    await server.register([method("0", "M")]);
    await server.unregister(["0"]);
  }),

  scenario("unregister/some", "one of several", async (s) => {
    const { server, caller } = await two(s, method("0", "M"), method("1", "N"), method("2", "O"));
    await server.unregister(["1"]);
    await caller.call(server, "1");
    await server.unregister(["0", "2"]);
    await server.unregister(["0"]);
  }),

  scenario("unregister/unknown", "all or nothing", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await server.unregister(["nope"]);
    await server.unregister(["0", "nope"]);
    await caller.call(server, "0");
    await server.yield(invoked(), { result: {} });
    await caller.unregister(["0"]);
    await server.unregister(["0", "0"]);
  }),

  scenario("unregister/pending-call", "a call that is under way outlives its method", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0");
    await server.unregister(["0"]);
    await server.yield(invoked(), { result: { late: true } });
  }),

  scenario("call/arguments-by-name", "arguments_kv and context reach the server", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0", { arguments_kv: { x: 1, y: { z: [null] } }, context: { trace: 1 } });
    await server.yield(invoked(), { result: { sum: 2 } });
    await caller.call(server, "0", { arguments_kv: {} });
    await server.yield(invoked(), { result: {} });
  }),

  scenario("call/arguments-by-position", "so do arguments, and none at all", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0", { arguments: [1, "x", null] });
    await server.yield(invoked(), { result: { ok: true } });
    await caller.call(server, "0");
    await server.yield(invoked(), { result: { ok: true } });
  }),

  scenario("call/arguments-of-both-kinds", "both kinds at once are refused, if neither is empty", async (s) => {
    const { server, caller } = await two(s, method("0", "M"));
    await caller.call(server, "0", { arguments: [1], arguments_kv: { a: 1 } });
    await caller.call(server, "0", { arguments: [], arguments_kv: { a: 1 } });
    await caller.call(server, "0", { arguments: [1], arguments_kv: {} });
    await caller.call(server, "0", { arguments: null, arguments_kv: { a: 1 } });
  }),

  scenario("call/arguments-odd", "arguments that are neither list nor object", async (s) => {
    const { server, caller } = await two(s, method("0", "M"));
    await caller.call(server, "0", { arguments_kv: "text" });
    await caller.call(server, "0", { arguments_kv: [1] });
    await caller.call(server, "0", { arguments_kv: null });
    await caller.call(server, "0", { arguments: { a: 1 } });
    await caller.call(server, "0", { arguments_kv: 7, context: "text" });
  }),

  scenario("call/unknown", "methods and servers that are not there", async (s) => {
    const { server, caller } = await two(s, method("0", "M"));
    await caller.call(server, "nope");
    await caller.call(server, undefined);
    await caller.call({ peer: "p-nope" }, "0");
    await caller.call(undefined, "0");
    await caller.call({ peer: null }, "0");
    await caller.call({ peer: 7 }, "0");
  }),

  scenario("call/not-joined", "calls by and to peers that are not in the domain", async (s) => {
    const { server, caller } = await two(s, method("0", "M"));
    const outside = await s.client("outside");
    await outside.call(server, "0");
    await caller.call(outside, "0");
    await outside.subscribe(server, "0");
  }),

  scenario("call/self", "a peer may call itself", async (s) => {
    const { server, invoked } = await two(s, method("0", "M"));
    await server.call(server, "0", { arguments_kv: { me: true } });
    await server.yield(invoked(), { result: { me: true } });
    await server.call(server, "0");
    await server.fail(invoked());
  }),

  scenario("call/stream", "the gateway does not check that a stream is not called", async (s) => {
    const { server, caller } = await two(s, feed("0", "S"));
    await caller.call(server, "0");
  }),

  scenario("call/out-of-order", "calls are answered in any order", async (s) => {
    const { server, caller } = await two(s, method("0", "M"));
    const ids = [];
    for (const n of [1, 2, 3]) {
      await caller.call(server, "0", { arguments_kv: { n } });
      ids.push(server.last("invoke").invocation_id);
    }
    for (const i of [2, 0, 1]) await server.yield(ids[i], { result: { i } });
  }),

  scenario("call/burst", "calls in one breath arrive in order", async (s) => {
    const { server, caller } = await two(s, method("0", "M"));
    await caller.send(...[1, 2, 3, 4, 5].map((n) => ({ domain: "agm", type: "call", server_id: server.peer, method_id: "0", arguments_kv: { n } })));
  }),

  scenario("yield/results", "results of all kinds", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    for (const result of [{ _value: 5 }, {}, null, undefined, "text", 7, false, [1, 2]]) {
      await caller.call(server, "0");
      await server.yield(invoked(), { result });
    }
  }),

  scenario("yield/twice", "the first outcome counts", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0");
    await server.yield(invoked(), { result: { n: 1 } });
    await server.yield(invoked(), { result: { n: 2 } });
    await server.fail(invoked());
  }),

  scenario("yield/unknown", "results of calls that nobody made", async (s) => {
    const { server } = await two(s, method("0", "M"));
    await server.yield("r-bogus", { result: {} });
    await server.yield(undefined, { result: {} });
    await server.yield(7, { result: {} });
  }),

  scenario("yield/of-another", "a result from a peer that was not called", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    const thief = await s.client("thief", { join: ["agm"] });
    await caller.call(server, "0");
    await thief.yield(invoked(), { result: { stolen: true } });
    await thief.fail(invoked());
    await server.yield(invoked(), { result: { own: true } });
  }),

  scenario("yield/after-caller-left", "the caller has gone", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0");
    await caller.leave("agm");
    await server.yield(invoked(), { result: { late: true } });
    await server.fail(invoked());
  }),

  scenario("yield/after-caller-closed", "the caller has closed its connection", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0");
    await caller.close([server, "peer-removed"]);
    await server.yield(invoked(), { result: { late: true } });
    await server.fail(invoked());
  }),

  scenario("fail/with-context", "an error of the server reaches the caller as it is", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0");
    await server.fail(invoked(), { reason_uri: "my.uri", reason: "why", context: { c: [1] } });
    await caller.call(server, "0");
    await server.fail(invoked(), { reason: "no context" });
  }),

  scenario("fail/unknown", "errors of calls that nobody made", async (s) => {
    const { server } = await two(s, method("0", "M"));
    await server.fail("r-bogus");
    await server.fail(undefined);
  }),

  scenario("gone/server-left", "the server leaves with calls pending", async (s) => {
    const { server, caller } = await two(s, method("0", "M"), method("1", "N"));
    await caller.call(server, "0");
    await caller.call(server, "1");
    await server.leave("agm", { reason_uri: "my.reason", reason: "bye" });
  }, { unordered: [endingsInAnyOrder] }),

  scenario("gone/server-closed", "the server closes its connection with a call pending", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"));
    await caller.call(server, "0");
    const late = invoked();
    await server.close([caller, "peer-removed"]);
    const again = await s.client("again", { join: ["agm"] });
    await again.register([method("0", "M")]);
    await again.yield(late, { result: { late: true } });
  }),

  scenario("gone/everything", "a peer with a call, streams of both sides and methods goes", async (s) => {
    const { server, caller, invoked } = await two(s, method("0", "M"), feed("1", "S"));
    await caller.register([method("0", "Back"), feed("1", "BackS")]);
    await caller.call(server, "0");
    await caller.subscribe(server, "1");
    await server.accept(server.last("add-interest").subscription_id, "s0");
    await caller.subscribe(server, "1");
    await server.subscribe(caller, "1");
    await caller.accept(caller.last("add-interest").subscription_id, "s0");
    await server.call(caller, "0");
    invoked();
    await server.close([caller, "peer-removed"]);
  }, { unordered: [endingsInAnyOrder] }),
];
