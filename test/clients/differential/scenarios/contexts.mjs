// Shared contexts, in domain global like the shipped clients, and in domain context.
import { contextsInAnyOrder, peersInAnyOrder, scenario } from "./scenario.mjs";

/** shared is a context with its creator and another member. */
async function shared(s, data, more) {
  const writer = await s.client("writer");
  const member = await s.client("member");
  await writer.create("C", data, more);
  const id = writer.last("context-created").context_id;
  await member.member(id);
  return { writer, member, id };
}

/**
 * deltas makes a scenario of [object before, delta] pairs: each is a context of its
 * own with two members, one of which updates; a third client reads the result.
 */
function deltas(name, about, pairs) {
  return scenario(`delta/${name}`, about, async (s) => {
    const writer = await s.client("writer");
    const member = await s.client("member");
    const reader = await s.client("reader");
    for (const [i, [before, delta]] of pairs.entries()) {
      await writer.create(`C${i}`, before);
      const id = writer.last("context-created").context_id;
      await member.member(id);
      await writer.update(id, delta);
      await reader.member(id);
    }
  });
}

const set = (path, value) => ({ type: "set", path, value });
const remove = (path) => ({ type: "remove", path });

export default [
  scenario("context/create", "announced to all, then created", async (s) => {
    const a = await s.client("a");
    await s.client("b");
    await a.create("C", { a: 1, deep: { x: [1, { y: null }] } });
    await s.client("late");
  }),

  scenario("context/create-existing", "creating what is there is joining it", async (s) => {
    const { writer, id } = await shared(s, { a: 1 });
    const late = await s.client("late");
    await late.create("C", { other: 1 }, { lifetime: "ref-counted" });
    await writer.update(id, { added: { b: 2 } });
    await writer.create("C", { again: 1 });
    await late.destroy(id);
  }),

  scenario("context/create-data", "data of all kinds", async (s) => {
    const a = await s.client("a");
    const b = await s.client("b");
    for (const [i, data] of [{}, undefined, null, { no: null, list: [], half: 0.5, "a.b": 1, "": 2 }].entries()) {
      await a.create(`C${i}`, data);
      await b.member(a.last("context-created").context_id);
    }
  }),

  scenario("context/create-no-object", "data that is no object", async (s) => {
    const a = await s.client("a");
    for (const data of ["text", 7, [1], true]) await a.create(`C-${data}`, data);
  }),

  scenario("context/create-no-name", "a context without a name", async (s) => {
    const a = await s.client("a");
    await a.create(undefined, {});
    await a.create(null, {});
    await a.create("", {});
    await a.create(7, {});
    await s.client("late");
  }, { unordered: [contextsInAnyOrder] }),

  scenario("context/names", "names of all kinds", async (s) => {
    const a = await s.client("a");
    const b = await s.client("b");
    for (const name of ["T42.Demo ü/*>", " ", "a.b.c", "n".repeat(200), "___workspace___1", "=.x"]) {
      await a.create(name, { name });
      await b.member(a.last("context-created").context_id);
    }
  }),

  scenario("context/lifetimes", "the three lifetimes and what is none", async (s) => {
    const a = await s.client("a");
    for (const lifetime of ["retained", "ref-counted", "ownership", "activity", "weird", undefined, null, 7]) await a.create(`C-${lifetime}`, { a: 1 }, { lifetime });
    await s.client("late");
  }, { unordered: [contextsInAnyOrder] }),

  scenario("context/member", "a snapshot each time", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 });
    await member.member(id);
    await writer.update(id, { added: { b: 2 } });
    await member.member(id);
    await writer.member(id);
  }),

  scenario("context/unsubscribe", "no more updates", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 });
    await member.noMember(id);
    await writer.update(id, { added: { b: 2 } });
    await member.noMember(id);
    await member.member(id);
    await writer.noMember(id);
    await member.update(id, { added: { c: 3 } });
    await writer.member(id);
  }),

  scenario("context/unknown", "ids that are not there", async (s) => {
    const a = await s.client("a");
    for (const id of ["c-bogus", undefined, null, 7]) {
      await a.member(id);
      await a.noMember(id);
      await a.update(id, { added: { a: 1 } });
      await a.destroy(id);
    }
  }),

  scenario("context/update-by-outsider", "who updates need not be a member", async (s) => {
    const { id } = await shared(s, { a: 1 });
    const outsider = await s.client("outsider");
    await outsider.update(id, { updated: { a: 2 } });
    await outsider.member(id);
  }),

  scenario("context/update-order", "updates of two members", async (s) => {
    const { writer, member, id } = await shared(s, { a: 0 });
    const reader = await s.client("reader");
    await reader.member(id);
    await writer.update(id, { updated: { a: 1 } });
    await member.update(id, { updated: { a: 2 } });
    await writer.update(id, { updated: { a: 3 }, added: { b: 1 } });
    await member.update(id, { removed: ["b"] });
  }),

  scenario("context/update-same", "an update that changes nothing", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1, o: { x: 1 } });
    await writer.update(id, { updated: { a: 1, o: { x: 1 } } });
    await writer.update(id, { commands: [set("o.x", 1)] });
    await writer.update(id, { reset: { a: 1, o: { x: 1 } } });
    await writer.update(id, { removed: ["not"] });
    await member.member(id);
  }),

  scenario("context/burst", "updates in one breath", async (s) => {
    const { writer, member, id } = await shared(s, { n: 0 });
    await writer.send(...[1, 2, 3, 4, 5].map((n) => ({ domain: "global", type: "update-context", context_id: id, delta: { updated: { n }, added: { [`k${n}`]: n } } })));
    await member.member(id);
  }),

  scenario("context/pipeline", "update, snapshot and update in one breath", async (s) => {
    const { writer, member, id } = await shared(s, { n: 0 });
    const ask = (type, more) => ({ domain: "global", type, context_id: id, ...more });
    await member.send(ask("update-context", { delta: { updated: { n: 1 } } }), ask("subscribe-context"), ask("update-context", { delta: { updated: { n: 2 } } }), ask("subscribe-context"));
    await writer.member(id);
  }),

  scenario("context/destroy", "members are told, and the others", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 });
    await s.client("outsider");
    await member.destroy(id);
    await member.destroy(id);
    await writer.update(id, { added: { b: 1 } });
    await writer.member(id);
    await writer.create("C", { again: true });
    await s.client("late");
  }),

  scenario("context/destroy-by-outsider", "anybody may destroy", async (s) => {
    const { id } = await shared(s, { a: 1 });
    const outsider = await s.client("outsider");
    await outsider.destroy(id);
  }),

  scenario("context/create-again", "a context of the same name after a destroy is another", async (s) => {
    const { writer, member, id } = await shared(s, { first: 1 });
    await writer.destroy(id);
    await writer.create("C", { second: 1 });
    await member.update(id, { added: { stale: 1 } });
    await member.member(writer.last("context-created").context_id);
    await writer.update(writer.last("context-created").context_id, { added: { more: 1 } });
  }),

  scenario("context/retained", "survives its creator", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 });
    await s.client("watcher", { join: ["agm"] });
    await writer.join("agm");
    await writer.close([s.clients.at(-1), "peer-removed"]);
    await member.update(id, { added: { b: 1 } });
    const late = await s.client("late");
    await late.member(id);
  }),

  scenario("context/ownership", "dies with its owner", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 }, { lifetime: "ownership" });
    const outsider = await s.client("outsider");
    await member.update(id, { added: { b: 1 } });
    await member.destroy(id);
    await s.client("late");
    await writer.noMember(id);
    await writer.close([outsider, "context-destroyed"]);
    await member.member(id);
  }),

  scenario("context/ownership-destroy", "its owner may destroy it", async (s) => {
    const { writer, id } = await shared(s, { a: 1 }, { lifetime: "ownership" });
    await writer.destroy(id);
  }),

  scenario("context/ref-counted", "dies with its last member", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 }, { lifetime: "ref-counted" });
    await s.client("outsider");
    await writer.noMember(id);
    await member.update(id, { added: { b: 1 } });
    await member.noMember(id);
    await member.member(id);
  }),

  scenario("context/ref-counted-closed", "dies when its last member closes", async (s) => {
    const { writer, member, id } = await shared(s, { a: 1 }, { lifetime: "ref-counted" });
    const outsider = await s.client("outsider");
    await writer.noMember(id);
    await member.close([outsider, "context-destroyed"]);
    await writer.member(id);
  }),

  scenario("context/domain", "the same in domain context", async (s) => {
    const a = await s.client("a", { join: ["context"] });
    const b = await s.client("b", { join: ["context"] });
    const g = await s.client("g");
    const here = { domain: "context" };
    await a.create("C", { a: 1 }, here);
    const id = a.last("context-created").context_id;
    await b.member(id, here);
    await g.member(id);
    await a.update(id, { added: { b: 1 } }, here);
    await g.update(id, { added: { c: 1 } });
    await b.noMember(id, here);
    await a.update(id, { commands: [set("d", 1)] }, here);
    await b.create("C", {}, here);
    await a.destroy(id, here);
  }, { unordered: [peersInAnyOrder] }),

  scenario("context/domain-errors", "errors of domain context are its own", async (s) => {
    const a = await s.client("a", { join: ["context"] });
    const here = { domain: "context" };
    await a.update("nope", {}, here);
    await a.member("nope", here);
    await a.create("C", {}, { ...here, lifetime: "weird" });
    await a.update("nope", {});
  }),

  scenario("context/domain-not-joined", "domain context without a join", async (s) => {
    const a = await s.client("a");
    await s.client("b");
    await a.create("C", { a: 1 }, { domain: "context" });
    await a.update(a.last("context-created").context_id, { added: { b: 1 } }, { domain: "context" });
  }),

  scenario("context/domain-leave", "leaving domain context ends memberships", async (s) => {
    const a = await s.client("a", { join: ["context"] });
    const b = await s.client("b", { join: ["context"] });
    await a.create("Own", { a: 1 }, { domain: "context", lifetime: "ownership" });
    await b.member(a.last("context-created").context_id);
    await a.create("Kept", { a: 1 });
    const kept = a.last("context-created").context_id;
    await a.leave("context");
    await b.update(kept, { added: { b: 1 } });
  }, { unordered: [contextsInAnyOrder, peersInAnyOrder] }),

  scenario("context/large", "a context of a quarter of a megabyte", async (s) => {
    const { writer, member, id } = await shared(s, { list: Array.from({ length: 4_096 }, (_, i) => ({ i, text: "0123456789abcdef0123456789abcdef" })) });
    await writer.update(id, { updated: { list: ["small"] } });
    await member.member(id);
  }),

  scenario("context/many-keys", "more keys than an update usually has", async (s) => {
    const { writer, member, id } = await shared(s, {});
    const keys = Array.from({ length: 300 }, (_, i) => `k${i}`);
    await writer.update(id, { added: Object.fromEntries(keys.map((k, i) => [k, i])) });
    await writer.update(id, { removed: keys.slice(1) });
    await member.member(id);
  }),

  deltas("added", "keys are set", [
    [{}, { added: { a: 1, o: { x: 1 } } }],
    [{ o: { a: 1 } }, { added: { o: { b: 1 } } }],
    [{ a: 1 }, { added: { a: null } }],
    [{ a: 1 }, { added: {} }],
    [{ a: 1 }, { added: { "x.y": 1, "": 2 } }],
  ]),

  deltas("updated", "objects merge one level deep", [
    [{ o: { x: 1, y: { z: 1 } } }, { updated: { o: { y: { w: 2 } } } }],
    [{ o: { x: 1 } }, { updated: { o: {} } }],
    [{ o: 1 }, { updated: { o: { a: 1 } } }],
    [{ o: { a: 1 } }, { updated: { o: 1 } }],
    [{}, { updated: { o: { a: 1 } } }],
    [{ o: [1, 2, 3] }, { updated: { o: [9] } }],
    [{ o: 1 }, { updated: { o: null } }],
    [{ o: { a: 1 } }, { updated: { o: null } }],
    [{ o: null }, { updated: { o: { a: 1 } } }],
    [{ o: { a: 1 } }, { updated: { o: { a: null } } }],
  ]),

  deltas("updated-list-to-object", "a list and an object do not merge", [[{ o: [1, 2] }, { updated: { o: { a: 1 } } }]]),
  deltas("updated-object-to-list", "nor the other way round", [[{ o: { a: 1 } }, { updated: { o: [9] } }]]),

  deltas("removed", "keys are removed", [
    [{ a: 1, b: 2 }, { removed: ["a"] }],
    [{ a: 1 }, { removed: ["zzz"] }],
    [{ a: 1 }, { removed: [] }],
    [{ a: { b: 1 }, "a.b": 2 }, { removed: ["a.b"] }],
  ]),

  deltas("reset", "everything is replaced", [
    [{ a: 1, b: 2 }, { reset: { z: 1 } }],
    [{ a: 1 }, { reset: {} }],
    [{ a: 1 }, { reset: null }],
  ]),

  deltas("empty", "nothing at all", [
    [{ a: 1 }, {}],
    [{ a: 1 }, undefined],
    [{ a: 1 }, null],
    [{ a: 1 }, { commands: [] }],
  ]),

  deltas("like-clients", "all keys as the clients send them", [
    [{ a: 1, b: 2 }, { added: {}, updated: {}, removed: [], commands: [set("a", { n: 1 }), remove("b"), set("c", [1])] }],
    [{ a: 1, b: 2 }, { added: { c: 1 }, updated: { a: 5 }, removed: ["b"] }],
    [{ a: { x: 1 } }, { commands: [set("a.x", 2), set("a.y.z", 3)] }],
  ]),

  deltas("set", "commands that set", [
    [{ a: 1 }, { commands: [set("b", 1)] }],
    [{}, { commands: [set("a.b.c", 1)] }],
    [{ a: 1 }, { commands: [set("a.b", 2)] }],
    [{ a: { b: { c: 1 } } }, { commands: [set("a.b", { d: 1 })] }],
    [{ a: 1 }, { commands: [set("a", null)] }],
    [{ a: null }, { commands: [set("a.b", 1)] }],
    [{ a: 1 }, { commands: [set("a", 2), set("a", 3), set("b", 4)] }],
    [{ "x.y": 1 }, { commands: [set("x.y", 2)] }],
    [{ a: 0 }, { commands: [set("a.b", 1)] }],
  ]),

  deltas("set-in-list", "a path that goes through a list", [[{ a: [1, 2] }, { commands: [set("a.1", "x")] }]]),
  deltas("set-past-list", "a path that goes past the end of a list", [[{ a: [1] }, { commands: [set("a.3", "x")] }]]),
  deltas("set-key-of-list", "a path to a list's key that is no number", [[{ a: [1, 2] }, { commands: [set("a.key", "x")] }]]),
  deltas("set-below-list", "a path to an object in a list", [[{ a: [{ x: 1 }] }, { commands: [set("a.0.x", 2)] }]]),
  deltas("set-empty-path", "the empty path is the whole", [[{ a: 1 }, { commands: [set("", { whole: 1 })] }]]),
  deltas("set-empty-segment", "a path that ends in a dot", [[{ a: { k: 1 } }, { commands: [set("a.", 1)] }]]),
  deltas("set-without-value", "a value that is missing", [[{ a: 1 }, { commands: [{ type: "set", path: "a" }] }]]),

  deltas("remove", "commands that remove", [
    [{ a: { b: { c: 1 } } }, { commands: [remove("a.b.c")] }],
    [{ a: 1, b: 2 }, { commands: [remove("a")] }],
    [{ a: 1 }, { commands: [remove("z")] }],
    [{ a: { b: 1 } }, { commands: [remove("a.z")] }],
    [{ a: { b: 1 } }, { commands: [remove("a"), set("a.c", 2)] }],
  ]),

  deltas("remove-below-missing", "a path through what is not there", [[{ a: 1 }, { commands: [remove("not.there")] }]]),
  deltas("remove-below-value", "a path through a value", [[{ a: 1 }, { commands: [remove("a.b")] }]]),
  deltas("remove-in-list", "an element of a list", [[{ a: [1, 2] }, { commands: [remove("a.1")] }]]),
  deltas("remove-empty-path", "the empty path is the whole", [[{ a: 1 }, { commands: [remove("")] }]]),

  deltas("mixed-commands", "commands with other keys", [[{ a: 1 }, { commands: [set("b", 1)], added: { c: 1 }, removed: ["a"] }]]),
  deltas("mixed-reset", "reset with other keys", [[{ a: 1 }, { reset: { r: 1 }, added: { z: 1 } }]]),
  deltas("mixed-removed-added", "a key that is removed and added", [[{ a: 1 }, { removed: ["a"], added: { a: 2 } }]]),
  deltas("mixed-added-removed", "a key that is added and removed", [[{ a: 1 }, { added: { a: 2 }, removed: ["a"] }]]),
  deltas("unknown-key", "keys that nobody knows are forwarded", [[{ a: 1 }, { bogus: { x: 1 }, added: { b: 1 } }]]),

  deltas("unknown-command", "one unknown command refuses the whole update", [[{ a: 1 }, { commands: [set("b", 1), { type: "bogus", path: "x" }] }]]),
  deltas("bad-commands", "commands that are no list", [[{ a: 1 }, { commands: "x" }]]),
  deltas("bad-delta", "a delta that is no object", [[{ a: 1 }, "x"]]),
  deltas("bad-path", "a command without a path", [[{ a: 1 }, { commands: [{ type: "set", value: 1 }] }]]),
];
