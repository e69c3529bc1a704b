// hello and authentication.
import { method, peersInAnyOrder, scenario } from "./scenario.mjs";

const secret = { method: "secret", login: "u1", secret: "s" };

export default [
  scenario("hello/secret", "an identity comes back with what the gateway adds", async (s) => {
    const a = await s.open("a");
    await a.hello({ identity: { application: "a", applicationName: "A", process: 7, windowId: "w", region: "R", environment: "E", api: "6.10.4", custom: { x: [1, null] } } });
  }),

  scenario("hello/no-domain", "hello without a domain", async (s) => {
    const a = await s.open("a");
    await a.hello({ domain: undefined });
  }),

  scenario("hello/no-identity", "hello without an identity, or with an odd one", async (s) => {
    for (const [name, identity] of [["a", undefined], ["b", {}], ["c", { x: 1 }], ["d", null]]) {
      const client = await s.open(name);
      await client.hello({ identity });
    }
  }),

  scenario("hello/identity-no-object", "an identity that is a string or a list", async (s) => {
    const a = await s.open("a");
    await a.hello({ identity: "app" });
    const b = await s.open("b");
    await b.hello({ identity: [1] });
  }),

  scenario("hello/peer-sees-identity", "others see the identity that the gateway made of it", async (s) => {
    const a = await s.client("a", { identity: { application: "app", applicationName: "App", process: 1, custom: { deep: [1] }, user: "spoof", login: "spoof" }, join: ["agm"] });
    const b = await s.client("b", { join: ["agm"] });
    await b.register([method("0", "M")]);
    await a.call(b, "0");
  }),

  scenario("hello/instance-kept", "an instance that the client names stays", async (s) => {
    const a = await s.client("a", { identity: { application: "a", instance: "mine" }, join: ["agm"] });
    const b = await s.client("b", { identity: { application: "b", instance: "mine" }, join: ["agm"] });
    await b.leave("agm");
    await a.leave("agm");
  }),

  scenario("hello/instance-twice", "the same identity is connected once", async (s) => {
    const identity = { application: "a", instance: "mine" };
    const a = await s.client("a", { identity, join: ["agm"] });
    const watcher = await s.client("watcher", { join: ["agm"] });
    const b = await s.open("b");
    await b.hello({ identity });
    await a.close([watcher, "peer-removed"]);
    await b.hello({ identity });
    await b.join("agm");
  }),

  scenario("hello/question-mark", "a question mark becomes the peer id", async (s) => {
    const a = await s.open("a");
    await a.hello({ identity: { application: "?", instance: "?", windowId: "?", other: "??", deep: { x: "?" } } });
  }),

  scenario("hello/user-override", "user and login are those of the authentication", async (s) => {
    const a = await s.open("a");
    await a.hello({ identity: { application: "a", user: "spoof", login: "spoof" } });
  }),

  scenario("hello/machine-given", "a machine that the client names", async (s) => {
    const a = await s.open("a");
    await a.hello({ identity: { application: "a", machine: "machine-of-the-client" } });
  }),

  scenario("hello/stamps-given", "node and osUser that the client names", async (s) => {
    const a = await s.open("a");
    await a.hello({ identity: { application: "a", node: "node-of-the-client", osUser: "user-of-the-client" } });
  }),

  scenario("hello/secret-missing", "login and secret have to be there; the secret may be empty", async (s) => {
    const a = await s.open("a");
    await a.hello({ authentication: { method: "secret", login: "u1" } });
    await a.hello({ authentication: { method: "secret", secret: "s" } });
    await a.hello({ authentication: { method: "secret", login: "u1", secret: null } });
    await a.hello({ authentication: { method: "secret", login: "u1", secret: "" } });
  }),

  scenario("hello/login-empty", "an empty login", async (s) => {
    const a = await s.open("a");
    await a.hello({ authentication: { method: "secret", login: "", secret: "s" } });
  }),

  scenario("hello/method-unknown", "an authentication that nobody knows, and none", async (s) => {
    const a = await s.open("a");
    await a.hello({ authentication: { method: "nope" } });
    await a.hello({ authentication: {} });
    await a.hello({ authentication: undefined });
    await a.hello({ authentication: null });
    await a.hello({ authentication: "secret" });
  }),

  scenario("hello/provider", "the provider basic is there, others are not", async (s) => {
    const a = await s.open("a");
    await a.hello({ authentication: { provider: "win", method: "access-token", token: "xx" } });
    await a.hello({ authentication: { provider: "custom", providerContext: { x: 1 } } });
    await a.hello({ authentication: { ...secret, provider: "basic" } });
  }),

  scenario("hello/access-token", "the access token of a welcome is good for another hello", async (s) => {
    const a = await s.client("a", { identity: { application: "a", user: "other" } });
    const { access_token: token } = a.last("welcome").options;
    const b = await s.open("b");
    await b.hello({ authentication: { method: "access-token", token } });
  }),

  scenario("hello/access-token-bad", "access tokens that are none", async (s) => {
    const a = await s.open("a");
    for (const token of ["xx", "", "a.b.c", undefined, null, 7]) await a.hello({ authentication: { method: "access-token", token } });
  }),

  scenario("hello/access-token-forged", "an access token that was changed", async (s) => {
    const a = await s.client("a");
    const { access_token: token } = a.last("welcome").options;
    const b = await s.open("b");
    for (const at of [0.3, 0.6, 0.9].map((part) => Math.floor(part * token.length))) {
      const other = token[at] === "A" ? "B" : "A";
      await b.hello({ authentication: { method: "access-token", token: token.slice(0, at) + other + token.slice(at + 1) } });
    }
  }),

  scenario("hello/gateway-token", "a token that a peer asked for is good for another hello", async (s) => {
    const a = await s.client("a");
    await a.createToken();
    const { token } = a.last("token");
    const b = await s.open("b");
    await b.hello({ authentication: { method: "gateway-token", token } });
  }),

  scenario("hello/gateway-token-visible", "who came with a gateway token is seen by the others", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.createToken();
    const b = await s.open("b");
    await b.hello({ authentication: { method: "gateway-token", token: a.last("token").token } });
    await b.join("agm");
  }),

  scenario("hello/gateway-token-bad", "gateway tokens that are none", async (s) => {
    const a = await s.client("a");
    const { access_token } = a.last("welcome").options;
    const b = await s.open("b");
    for (const token of ["xx", access_token]) await b.hello({ authentication: { method: "gateway-token", token } });
  }),

  scenario("hello/again-after-failure", "hello may be tried again", async (s) => {
    const a = await s.open("a");
    await a.hello({ authentication: { method: "nope" } });
    await a.hello();
    await a.join("agm");
  }),

  scenario("hello/twice", "a second hello on one connection", async (s) => {
    const watcher = await s.client("watcher", { join: ["agm"] });
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M")]);
    await a.hello({ identity: { application: "a again" } });
    await a.join("agm");
    await a.register([method("1", "M")]);
    await watcher.call(a, "1");
    await a.yield(a.last("invoke").invocation_id, { result: { by: "the second" } });
  }, { unordered: [peersInAnyOrder] }),

  scenario("hello/twice-old-peer", "the first peer's id after a second hello", async (s) => {
    const watcher = await s.client("watcher", { join: ["agm"] });
    const a = await s.client("a", { join: ["agm"] });
    const first = a.peer;
    await a.hello();
    await a.register([method("0", "M")], { peer_id: first });
    await watcher.call({ peer: first }, "0");
  }, { unordered: [peersInAnyOrder] }),

  scenario("hello/twice-same-instance", "a second hello on one connection with the same identity", async (s) => {
    const identity = { application: "a", instance: "mine" };
    const a = await s.client("a", { identity });
    await a.hello({ identity });
    await a.join("agm");
  }),

  scenario("hello/twice-refused", "a second hello that fails leaves the first peer alone", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M")]);
    await a.hello({ authentication: { method: "nope" } });
    await a.call(a, "0");
    await a.yield(a.last("invoke").invocation_id, { result: { still: "here" } });
  }),
];
