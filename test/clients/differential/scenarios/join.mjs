// join and leave, and how peers learn of each other.
import { feed, method, peersInAnyOrder, scenario } from "./scenario.mjs";

export default [
  scenario("join/twice", "joining twice is a success", async (s) => {
    const a = await s.client("a");
    await a.join("agm");
    await a.join("agm");
    const b = await s.client("b", { join: ["agm"] });
    await a.join("agm");
    await b.join("bus");
    await b.join("bus");
  }),

  scenario("join/errors", "joins that cannot be", async (s) => {
    const a = await s.client("a");
    await a.join("zzz");
    await a.join(undefined);
    await a.join(null);
    await a.join(7);
    await a.join("global");
  }),

  scenario("join/order", "peers learn of each other, then of methods, then the join is done", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await a.register([method("0", "M"), feed("1", "S")]);
    await a.register([method("2", "N")]);
    const b = await s.client("b", { join: ["agm"] });
    await b.register([method("0", "M")]);
    await a.leave("agm");
    await a.join("agm");
  }),

  scenario("join/many", "a late joiner learns of all", async (s) => {
    for (const name of ["a", "b", "c"]) {
      const client = await s.client(name, { join: ["agm"] });
      await client.register([method("0", `M-${name}`), feed("1", "S")]);
    }
    await s.client("late", { join: ["agm"] });
  }, { unordered: [peersInAnyOrder] }),

  scenario("join/every-domain", "the domains and what they say", async (s) => {
    const a = await s.client("a");
    for (const domain of ["agm", "bus", "context"]) await a.join(domain);
    await a.join("metrics", { options: { system: "S", service: "s", instance: "i" } });
    for (const domain of ["agm", "bus", "context", "metrics"]) await a.leave(domain);
  }),

  scenario("join/activity", "the domain of activities", async (s) => {
    const a = await s.client("a");
    await a.join("activity");
    await a.leave("activity");
  }),

  scenario("join/context", "members of domain context see each other", async (s) => {
    const a = await s.client("a");
    const b = await s.client("b");
    await a.join("context");
    await b.join("context");
    await a.leave("context");
  }),

  scenario("leave/reason", "a leave gives its reason to the others", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await s.client("b", { join: ["agm"] });
    await a.leave("agm", { reason_uri: "my.reason", reason: "bye" });
  }),

  scenario("leave/no-reason", "a leave without a reason", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await s.client("b", { join: ["agm"] });
    await a.leave("agm");
  }),

  scenario("leave/twice", "leaving again, and what was not joined", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    await s.client("b", { join: ["agm"] });
    await a.leave("agm");
    await a.leave("agm");
    await a.leave("bus");
    await a.leave("metrics");
    const c = await s.client("c");
    await c.leave("agm");
  }),

  scenario("leave/errors", "leaves that cannot be", async (s) => {
    const a = await s.client("a");
    await a.leave("zzz");
    await a.leave(undefined);
  }),

  scenario("leave/and-join", "methods are gone after a leave", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    const b = await s.client("b", { join: ["agm"] });
    await a.register([method("0", "M")]);
    await a.leave("agm");
    await b.call(a, "0");
    await a.join("agm");
    await b.call(a, "0");
    await a.register([method("0", "M")]);
    await b.call(a, "0");
  }),

  scenario("leave/close", "a closed connection leaves everything", async (s) => {
    const a = await s.client("a", { join: ["agm", "bus"] });
    const b = await s.client("b", { join: ["agm", "bus"] });
    await a.register([method("0", "M")]);
    await a.close([b, "peer-removed"]);
    await b.call(a, "0");
  }),

  scenario("leave/break", "so does a broken one", async (s) => {
    const a = await s.client("a", { join: ["agm"] });
    const b = await s.client("b", { join: ["agm"] });
    await a.register([method("0", "M")]);
    await a.break([b, "peer-removed"]);
    await b.call(a, "0");
  }),

  scenario("visibility/two-users", "whom peers of another login see", async (s) => {
    const a = await s.client("a", { join: ["agm", "bus"] });
    const b = await s.client("b", { login: "u2", join: ["agm", "bus"] });
    await a.register([method("0", "M")]);
    await b.call(a, "0");
    await b.listen("t");
    await a.say("t", { x: 1 });
  }),

  scenario("visibility/two-users-contexts", "contexts of another login", async (s) => {
    const a = await s.client("a");
    const b = await s.client("b", { login: "u2" });
    await a.create("C", { a: 1 });
    await b.create("C", { b: 1 });
    await a.member(a.last("context-added").context_id);
    await s.client("late", { login: "u3" });
  }),
];
