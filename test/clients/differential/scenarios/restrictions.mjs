// Restrictions on who sees whom and what, and permissions of contexts.
import { method, peersInAnyOrder, scenario } from "./scenario.mjs";

const from = (region, more) => ({ identity: { application: "app", region, level: 3, ...more } });

export default [
  scenario("restriction/method", "a method is hidden from those that its restrictions exclude", async (s) => {
    const a = await s.client("a", { ...from("X"), join: ["agm"] });
    const b = await s.client("b", { ...from("Y"), join: ["agm"] });
    await s.client("c", { ...from("X"), join: ["agm"] });
    await a.register([method("0", "Same", { restrictions: "$region == #region" }), method("1", "OnlyY", { restrictions: "$region == 'Y'" }), method("2", "Not", { restrictions: "$region != #region" })]);
    await b.call(a, "0");
    await b.call(a, "1");
    await a.call(a, "1");
    await s.client("late", { ...from("Y"), join: ["agm"] });
    await a.unregister(["0", "1"]);
  }, { unordered: [peersInAnyOrder] }),

  scenario("restriction/grammar", "all that an expression may be", async (s) => {
    const a = await s.client("a", { ...from("X"), join: ["agm"] });
    await s.client("b", { ...from("Y"), join: ["agm"] });
    const expressions = ["$level == 3", "$level != 3", "$region == 'X' || $region == 'Y'", "$region == 'Y' && $level == 4", "$region ? 'Y|Z'", "$region ? '.'", "$application ? 'a.*'", "($region == 'X' || $region == 'Y') && $level == 3", "$missing == 'x'", "$missing == #missing", "'Y' == $region", "#region == 'X'", "$region=='Y'", "$level == '3'", "$region == 'X' || $region == 'Y' && $level == 4", "$region == 'Y' && $level == 3 || $region == 'X'"];
    for (const [i, restrictions] of expressions.entries()) await a.register([method(`${i}`, `M${i}`, { restrictions })]);
  }),

  scenario("restriction/bad-grammar", "expressions that are none", async (s) => {
    const a = await s.client("a", { ...from("X"), join: ["agm"] });
    await s.client("b", { ...from("Y"), join: ["agm"] });
    for (const [i, restrictions] of ["not a grammar", "$region ==", "(", "$region = 'X'", "$reg_ion == 'Y'"].entries()) await a.register([method(`${i}`, `M${i}`, { restrictions })]);
  }),

  scenario("restriction/empty", "restrictions that say nothing", async (s) => {
    const a = await s.client("a", { ...from("X"), join: ["agm"] });
    await s.client("b", { ...from("Y"), join: ["agm"] });
    await a.register([method("0", "M0", { restrictions: null })]);
    await a.register([method("1", "M1", { restrictions: "" })]);
  }),

  scenario("restriction/join", "a peer chooses who sees it", async (s) => {
    const a = await s.client("a", { ...from("X"), join: ["agm"] });
    const b = await s.client("b", { ...from("Y"), join: ["agm"] });
    const hidden = await s.client("hidden", { ...from("X"), join: ["agm"], restrictions: "$region == #region" });
    await hidden.register([method("0", "M")]);
    await a.register([method("0", "M")]);
    await b.register([method("0", "M")]);
    await b.call(hidden, "0");
    await a.call(hidden, "0");
    await hidden.call(b, "0");
    await hidden.leave("agm");
  }, { unordered: [peersInAnyOrder] }),

  scenario("restriction/join-bad", "a join with restrictions that are no expression", async (s) => {
    const a = await s.client("a");
    await s.client("b", { join: ["agm"] });
    await a.join("agm", { restrictions: "not a grammar" });
  }),

  scenario("restriction/join-bus", "restrictions hold on the bus", async (s) => {
    const a = await s.client("a", { ...from("X"), join: ["bus"], restrictions: "$region == 'X'" });
    const b = await s.client("b", { ...from("Y"), join: ["bus"] });
    const c = await s.client("c", { ...from("X"), join: ["bus"] });
    await b.listen("t");
    await c.listen("t");
    await a.say("t", { v: 1 });
    await a.listen("u");
    await b.say("u", { v: 2 });
    await c.say("u", { v: 3 });
  }),

  scenario("permission/read", "a context that some may read", async (s) => {
    const a = await s.client("a", from("X"));
    const b = await s.client("b", from("Y"));
    const c = await s.client("c", from("X"));
    await a.create("C", { a: 1 }, { read_permissions: "$region == 'X'" });
    const id = a.last("context-created").context_id;
    await b.member(id);
    await c.member(id);
    await b.create("C", {});
    await b.update(id, { added: { b: 1 } });
    await s.client("late", from("Y"));
    await a.destroy(id);
  }),

  scenario("permission/write", "a context that some may write", async (s) => {
    const a = await s.client("a", from("X"));
    const b = await s.client("b", from("Y"));
    await a.create("C", { a: 1 }, { write_permissions: "$region == 'X'" });
    const id = a.last("context-created").context_id;
    await b.member(id);
    await b.update(id, { added: { b: 1 } });
    await b.destroy(id);
    await a.update(id, { added: { b: 1 } });
    await a.destroy(id);
  }),

  scenario("permission/both", "write permissions give the right to read", async (s) => {
    const a = await s.client("a", from("X"));
    const b = await s.client("b", from("Y"));
    const c = await s.client("c", from("Z"));
    await a.create("C", { a: 1 }, { read_permissions: "$region == 'X'", write_permissions: "$region == 'Y'" });
    const id = a.last("context-created").context_id;
    await b.member(id);
    await b.update(id, { added: { b: 1 } });
    await c.member(id);
    await c.update(id, { added: { c: 1 } });
    await a.update(id, { added: { d: 1 } });
  }),

  scenario("permission/bad-grammar", "permissions that are no expression", async (s) => {
    const a = await s.client("a", from("X"));
    await a.create("C", {}, { read_permissions: "bad grammar (" });
    await a.create("D", {}, { write_permissions: "bad grammar (" });
  }),
];
