// The differential test of the gateway: the same frames at the reference gateway
// and at Weft's. What every client receives must be the same, but for the
// differences that are listed and documented.
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";
import { Comparison } from "./differential/compare.mjs";
import { differences } from "./differential/differences.mjs";
import { startReference, startWeft } from "./differential/gateways.mjs";
import { Holding, applyDelta } from "./differential/holding.mjs";
import { printedProblem } from "./differential/print.mjs";
import { compareAll } from "./differential/run.mjs";
import { scenarios } from "./differential/scenarios/all.mjs";
import { play } from "./differential/stage.mjs";

const started = [];
const results = new Map(); // name of a scenario -> what compareAll says of it
const comparison = new Comparison(differences);

after(() => Promise.all(started.map((g) => g.stop())));

const text = (problems) => problems.map(printedProblem).join("\n");

test("both gateways send the same frames", { timeout: 300_000 }, async (t) => {
  for (const start of [startReference, startWeft]) started.push(await start());
  const [reference, weft] = started.map((g) => g.url);
  for await (const result of compareAll(scenarios, { reference, weft }, comparison)) {
    const { scenario, problems } = result;
    results.set(scenario.name, result);
    await t.test(`${scenario.name}: ${scenario.about}`, () => {
      assert.ok(problems.length === 0, text(problems));
      assert.equal(result.reference.stuck, undefined);
    });
  }
});

test("every listed difference occurs", () => {
  assert.equal(results.size, scenarios.length);
  assert.deepEqual(comparison.missing(), []);
});

test("every listed difference is in the package doc of gateway", () => {
  const doc = readFileSync(new URL("../../gateway/doc.go", import.meta.url), "utf8");
  assert.deepEqual(differences.map((d) => d.id).filter((id) => !doc.includes(`- ${id}: `)), []);
});

test("every listed difference says what it is and where", () => {
  for (const { id, reference, weft, tidy, equal, places = [] } of differences) {
    assert.ok(reference && weft && (tidy || equal || places.length > 0), id);
    for (const p of places) {
      const step = results.get(p.scenario)?.reference.steps.find((s) => s.key === p.at);
      assert.ok(step, `${id}: there is no step ${p.at} in ${p.scenario}`);
    }
  }
  assert.equal(new Set(differences.map((d) => d.id)).size, differences.length, "two entries have one id");
});

test("names of scenarios are theirs alone", () => assert.equal(new Set(scenarios.map((s) => s.name)).size, scenarios.length));

// Against itself the reference shows no difference, and no listed one occurs: so
// each of them says something of Weft. Scenarios with listed differences and some
// of the others are played.
test("the reference agrees with itself", async () => {
  const again = await startReference();
  started.push(again);
  const bare = new Comparison([]);
  const listed = new Comparison(differences.map(({ id, places }) => ({ id, places })));
  for (const [i, scenario] of scenarios.entries()) {
    const places = differences.flatMap((d) => d.places ?? []).filter((p) => p.scenario === scenario.name);
    if (places.length === 0 && i % 8 > 0) continue;
    const { reference } = results.get(scenario.name);
    const other = { ...(await play(scenario, again.url)), apart: [] };
    assert.equal(text(bare.scenario(scenario, reference, other)), "", scenario.name);
    const problems = listed.scenario(scenario, reference, other);
    // A frame that comes at another time is listed twice, and here it is where both say.
    const moved = (p) => places.some((q) => q.at === p.at && q.client === p.client && isDeepStrictEqual([q.reference, q.weft], [p.weft, p.reference]));
    for (const { at, client } of places.filter((p) => !moved(p))) assert.ok(problems.some((p) => p.key === at && p.client === client), `${scenario.name}, ${at}, client ${client}`);
  }
});

// A gateway that makes one mistake is found out, whatever the mistake.
const mistakes = {
  "loses a frame": (items) => items.slice(1),
  "sends a frame twice": (items) => [items[0], ...items],
  "sends a frame more": (items) => [...items, { frame: { domain: "agm", type: "success", request_id: "more", peer_id: "peer:a" } }],
  "sends the last frame first": (items) => (items.length > 1 && items.every((i) => i.frame?.type !== items[0].frame?.type || i === items[0]) ? [items.at(-1), ...items.slice(0, -1)] : undefined),
  "leaves a field out": ([first, ...items]) => first.frame && [{ ...first, frame: Object.fromEntries(Object.entries(first.frame).slice(1)) }, ...items],
  "adds a field": ([first, ...items]) => first.frame && [{ ...first, frame: { ...first.frame, more: null } }, ...items],
  "closes the connection": (items) => [...items, { closed: "connection" }],
};

for (const [mistake, make] of Object.entries(mistakes)) {
  test(`a gateway that ${mistake} is found out`, () => {
    let made = 0;
    for (const { scenario, reference } of results.values()) {
      for (const step of reference.steps) {
        for (const [client, items] of Object.entries(step.got)) {
          const wrong = make(items);
          if (!wrong) continue;
          made++;
          const other = { ...step, got: { ...step.got, [client]: wrong } };
          const problems = new Comparison([]).step({ name: scenario.name }, step, other);
          assert.ok(problems.length > 0, `${scenario.name}, ${step.key}, client ${client}`);
        }
      }
    }
    assert.ok(made > 100, `made ${made} times only`);
  });
}

test("so is one that stops in the middle", () => {
  const { scenario, reference } = results.get("call/out-of-order");
  const bare = new Comparison([]);
  assert.notEqual(text(bare.scenario(scenario, reference, { steps: reference.steps.slice(0, -1) })), "");
  assert.notEqual(text(bare.scenario(scenario, reference, { steps: reference.steps, stuck: "server has not received invoke" })), "");
});

const item = (frame, more) => ({ frame, ...more });
const updated = (delta, holds, changed = true, updater_id = "peer:b") => item({ type: "context-updated", context_id: "context:C", delta, updater_id }, { holds, changed });

/** verdict is what the comparison says of two lists of items that one client received. */
function verdict(reference, weft) {
  const scenario = { name: "x", unordered: [] };
  return new Comparison(differences.map((d) => ({ ...d, places: [] }))).step(scenario, { key: "a x", got: { a: reference } }, { key: "a x", got: { a: weft } }).length === 0;
}

test("deltas are compared by what they do", () => {
  const two = [updated({ added: { a: 1 } }, { a: 1 }), updated({ added: { b: 2 } }, { a: 1, b: 2 })];
  assert.ok(verdict([two[0]], [updated({ commands: [] }, { a: 1 })]), "other words");
  assert.ok(!verdict([two[0]], [updated({ commands: [] }, { a: 2 })]), "another effect");
  assert.ok(!verdict([two[0]], [updated({ commands: [] }, { a: 1 }, true, "peer:c")]), "another updater");
  assert.ok(verdict(two, [updated({}, { a: 1, b: 2 })]), "two in one");
  assert.ok(!verdict([two[0]], two), "one more");
  assert.ok(!verdict(two, [two[0]]), "the last is lost");
  assert.ok(verdict([updated({}, { a: 1 }, false)], []), "nothing for nothing");
  assert.ok(!verdict([two[0]], []), "nothing for something");
  const success = item({ type: "success", request_id: "1" });
  assert.ok(verdict([updated({}, { a: 1 }, false), success], [success]));
  assert.ok(!verdict([two[0], success], [success, two[0]]));
});

test("who updates a context may be told what is right, after the answer", () => {
  const success = item({ type: "success", request_id: "1" });
  const told = item({ type: "context-updated", context_id: "context:C", delta: {}, updater_id: "peer:a", peer_id: "peer:a" }, { holds: { a: 1 }, changed: true });
  assert.ok(verdict([success], [success, told]));
  assert.ok(!verdict([success], [told, success]), "before the answer");
  assert.ok(!verdict([success], [success, updated({}, { a: 1 })]), "by another");
});

test("announcements are compared by what is seen in the end", () => {
  const m = (id) => ({ id, name: `M${id}` });
  const announced = (saw, sees, more) => item({ type: "methods-added", domain: "agm", server_id: "peer:b", ...more }, { saw: [{ peer: "peer:b", methods: saw }], sees: [{ peer: "peer:b", methods: sees }] });
  const both = announced([], [m(0), m(1)], { methods: [m(0), m(1)] });
  const parts = [announced([], [m(1)], { methods: [m(1)] }), announced([m(1)], [m(1), m(0)], { methods: [m(0)] })];
  const back = [announced([m(0)], [], { type: "methods-removed", methods: [0] }), announced([], [m(0)], { methods: [m(0)] })];
  assert.ok(verdict([both], parts), "in parts");
  const withPlatform = parts.map((i) => ({ ...i, saw: [...i.saw, { peer: "stranger#1", methods: [m(9)] }], sees: [...i.sees, { peer: "stranger#1", methods: [m(9)] }] }));
  assert.ok(verdict([both], withPlatform), "in parts, beside the platform");
  assert.ok(!verdict([both], parts.slice(0, 1)), "one part");
  assert.ok(!verdict([both], [both, announced([m(0), m(1)], [m(0), m(1)], { methods: [m(0)] })]), "again");
  assert.ok(verdict(back, []), "gone and back");
  assert.ok(!verdict(back.slice(0, 1), []), "gone");
});

test("reasons are compared, but for the reference's internals", () => {
  const error = (reason, more) => [item({ type: "error", domain: "agm", reason_uri: "agm.errors.failure", reason, request_id: "1", ...more })];
  assert.ok(verdict(error("[object Object]"), error("a restriction ends too early")));
  assert.ok(!verdict(error("[object Object]"), error("")));
  assert.ok(!verdict(error("[object Object]"), error("a restriction", { reason_uri: "agm.errors.other" })));
  assert.ok(!verdict(error("Unable to find context with id c1"), error("no such context")));
});

test("identities are compared, but for what only Weft adds", () => {
  const added = (identity) => [item({ type: "peer-added", new_peer_id: "peer:b", identity })];
  assert.ok(verdict(added({ user: "u" }), added({ user: "u", node: "n1", osUser: "me" })));
  assert.ok(!verdict(added({ user: "u" }), added({ user: "v", node: "n1", osUser: "me" })));
  assert.ok(!verdict(added({ user: "u" }), added({ user: "u", node: "n1", osUser: "me", more: 1 })));
});

test("a listed difference is accepted at its place alone, and has to occur there", () => {
  const frame = (type) => item({ type, request_id: "1" });
  const places = [{ scenario: "x", at: "a x", client: "a", reference: [{ type: "old" }], weft: [{ type: "new" }] }];
  const judge = (scenario, key, reference, weft) => {
    const c = new Comparison([{ id: "d", places }]);
    const problems = c.scenario({ name: scenario }, { steps: [{ key, got: { a: reference } }] }, { steps: [{ key, got: { a: weft } }] });
    return { ok: problems.length === 0, missing: c.missing().length };
  };
  const both = frame("both");
  assert.deepEqual(judge("x", "a x", [both, frame("old")], [both, frame("new")]), { ok: true, missing: 0 });
  assert.deepEqual(judge("x", "a x", [both, frame("old")], [both]), { ok: false, missing: 1 });
  assert.deepEqual(judge("x", "a x", [both, frame("old")], [both, frame("old")]), { ok: false, missing: 1 });
  assert.deepEqual(judge("x", "a x", [frame("old")], [frame("new"), frame("new")]), { ok: false, missing: 0 });
  assert.deepEqual(judge("x", "a y", [frame("old")], [frame("new")]), { ok: false, missing: 1 });
  assert.deepEqual(judge("y", "a x", [frame("old")], [frame("new")]), { ok: false, missing: 0 });
});

test("what has no order is compared without", () => {
  const frames = ["b", "a", "b"].map((subscription_id, n) => item({ type: "event", subscription_id, n }));
  const bare = new Comparison([]);
  const compare = (unordered, order) => bare.step({ name: "x", unordered }, { key: "a x", got: { a: frames } }, { key: "a x", got: { a: order.map((i) => frames[i]) } }).length === 0;
  const unordered = [{ about: (m) => m.subscription_id }];
  assert.ok(compare(unordered, [1, 0, 2]));
  assert.ok(!compare(unordered, [1, 2, 0]), "of one subscription");
  assert.ok(!compare([], [1, 0, 2]));
});

test("deltas are applied like client libraries do", () => {
  const cases = [
    [{ a: 1 }, { reset: { b: 1 }, added: { c: 1 } }, { b: 1 }],
    [{ a: 1 }, { commands: [{ type: "set", path: "b.c", value: 1 }], removed: ["a"] }, { a: 1, b: { c: 1 } }],
    [{ a: [1, 2] }, { commands: [{ type: "set", path: "a.1", value: "x" }] }, { a: [1, "x"] }],
    [{ a: 1 }, { commands: [{ type: "remove", path: "not.there" }, { type: "remove", path: "a" }] }, {}],
    [{ o: { x: 1, y: 2 }, l: [1] }, { updated: { o: { x: 3 }, l: [2] }, added: { n: null }, removed: ["z"] }, { o: { x: 3, y: 2 }, l: [2], n: null }],
    [{ a: 1 }, { commands: "x" }, { a: 1 }],
    [{ a: 1 }, undefined, { a: 1 }],
    [{ a: 1 }, { commands: [{ type: "set", path: "b", value: 1 }, { type: "set", path: "__proto__.x", value: 1 }] }, { a: 1 }],
  ];
  for (const [before, delta, after] of cases) assert.deepEqual(applyDelta(before, delta), after, JSON.stringify(delta));
});

test("a client holds what it is told and what it does", () => {
  const h = new Holding();
  h.sent({ type: "create-context", request_id: "1", data: { a: 1 } });
  assert.deepEqual(h.received({ type: "context-created", request_id: "1", context_id: "c" }), { holds: { a: 1 }, changed: true });
  h.sent({ type: "update-context", request_id: "2", context_id: "c", delta: { added: { b: 2 } } });
  assert.deepEqual(h.received({ type: "success", request_id: "2" }), { holds: { a: 1, b: 2 }, changed: true });
  assert.equal(h.received({ type: "success", request_id: "2" }), undefined);
  assert.deepEqual(h.received({ type: "context-updated", context_id: "c", delta: { updated: { b: 2 } } }), { holds: { a: 1, b: 2 }, changed: false });
  h.sent({ type: "unsubscribe-context", context_id: "c" });
  assert.equal(h.received({ type: "context-updated", context_id: "c", delta: { updated: { b: 3 } } }), undefined);
});
