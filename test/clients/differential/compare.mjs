// Compares the steps of one scenario at the reference and at Weft. Differences are
// expected where differences.mjs lists them: by rules, which hold everywhere, and at
// single places. Both are counted, so that one that no longer occurs is found.
import { canonical } from "./holding.mjs";

/** Comparison knows what is expected, and counts what occurred. */
export class Comparison {
  #rules;
  #places;
  #seen = new Set(); // ids of rules, and places
  #played = new Set(); // names of scenarios

  constructor(differences) {
    this.#rules = differences.filter((d) => d.tidy || d.equal);
    this.#places = differences.flatMap((d) => (d.places ?? []).map((p) => ({ id: d.id, reference: [], weft: [], ...p })));
  }

  /** scenario lists what differs in a whole scenario: {key, client, reference, weft, why}. */
  scenario(scenario, reference, weft) {
    this.#played.add(scenario.name);
    const problems = [];
    const length = Math.max(reference.steps.length, weft.steps.length);
    for (let i = 0; i < length; i++) problems.push(...this.step(scenario, reference.steps[i], weft.steps[i]));
    if (reference.stuck !== weft.stuck) problems.push({ key: "the end", why: `the reference: ${reference.stuck ?? "played to the end"}; Weft: ${weft.stuck ?? "played to the end"}` });
    if (weft.apart?.length > 0) problems.push({ key: "the end", why: `members of ${weft.apart.join(" and ")} hold different objects` });
    return problems;
  }

  /** step lists what differs in one step. */
  step(scenario, reference, weft) {
    if (!reference || !weft) return [{ key: (reference ?? weft).key, why: `only ${reference ? "the reference" : "Weft"} came so far` }];
    const { key } = reference;
    const places = this.#places.filter((p) => p.scenario === scenario.name && p.at === key);
    const clients = new Set([...Object.keys(reference.got), ...Object.keys(weft.got), ...places.map((p) => p.client)]);
    return [...clients].flatMap((client) => {
      const here = places.filter((p) => p.client === client);
      return this.#compare({ key, client }, here, this.#tidy(scenario, reference.got[client] ?? [], "reference"), this.#tidy(scenario, weft.got[client] ?? [], "weft"));
    });
  }

  // What the rules leave of one client's items, in the order that counts.
  #tidy(scenario, items, side) {
    for (const rule of this.#rules) {
      if (!rule.tidy) continue;
      const tidied = items.map((item) => rule.tidy(item, side));
      if (tidied.some((item, i) => item !== items[i])) this.#seen.add(rule.id);
      items = tidied.filter((item) => item !== undefined);
    }
    return inOrder(items, scenario.unordered ?? []);
  }

  #compare(where, places, reference, weft) {
    const problems = [];
    for (const d of places) {
      const [r, w] = [without(reference, d.reference), without(weft, d.weft)];
      if (!r || !w) {
        problems.push({ ...where, why: `${d.id} is listed for here and does not occur`, reference, weft });
        continue;
      }
      this.#seen.add(d);
      [reference, weft] = [r, w];
    }
    const used = new Set();
    const rest = this.#align(reference, weft, used);
    if (rest) problems.push({ ...where, ...rest });
    else for (const id of used) this.#seen.add(id);
    return problems;
  }

  // Nothing if both have the same; otherwise what is left after the common start.
  #align(reference, weft, used) {
    let [r, w] = [0, 0];
    while (r < reference.length || w < weft.length) {
      if (same(reference[r], weft[w])) {
        r++, w++;
        continue;
      }
      const rule = this.#rules.find((rule) => {
        const taken = rule.equal?.(reference.slice(r), weft.slice(w));
        if (taken) [r, w] = [r + taken[0], w + taken[1]];
        return taken;
      });
      if (!rule) return { reference: reference.slice(r), weft: weft.slice(w) };
      used.add(rule.id);
    }
    return undefined;
  }

  /** missing lists what was expected in the scenarios that were played and did not occur. */
  missing() {
    const rules = this.#rules.filter((rule) => !this.#seen.has(rule.id)).map((rule) => `${rule.id} anywhere`);
    const places = this.#places.filter((p) => this.#played.has(p.scenario) && !this.#seen.has(p)).map((p) => `${p.id} in ${p.scenario}, ${p.at}, client ${p.client}`);
    return [...rules, ...places];
  }
}

/** same tells whether two items say the same, and leave the client with the same. */
export function same(r, w) {
  return r !== undefined && w !== undefined && canonical(plain(r)) === canonical(plain(w));
}

/** plain is an item without what only explains it. */
export function plain({ changed, saw, sees, ...item }) {
  return item;
}

// The items without one for each pattern, or nothing if one is not there.
function without(items, patterns) {
  const left = [...items];
  for (const pattern of patterns) {
    const i = left.findIndex((item) => fits(pattern, item));
    if (i < 0) return undefined;
    left.splice(i, 1);
  }
  return left;
}

// What the client then holds has to be exactly what the pattern says, if it says so.
function fits({ holds, ...pattern }, item) {
  return matches(pattern, { ...item, ...item.frame }) && (holds === undefined || canonical(holds) === canonical(item.holds));
}

/** matches tells whether a value has all that a pattern asks for. */
export function matches(pattern, value) {
  if (pattern instanceof RegExp) return typeof value === "string" && pattern.test(value);
  if (Array.isArray(pattern)) return Array.isArray(value) && pattern.length === value.length && pattern.every((p, i) => matches(p, value[i]));
  if (pattern && typeof pattern === "object") return value !== null && typeof value === "object" && Object.entries(pattern).every(([k, p]) => matches(p, value[k]));
  return pattern === value;
}

// Where the reference promises no order, items next to each other are sorted by
// what they are about; what is about the same thing keeps its order.
function inOrder(items, unordered) {
  for (const { about } of unordered) {
    const key = (item) => (item.frame ? about(item.frame) : undefined);
    const sorted = [];
    for (let i = 0; i < items.length; ) {
      let end = i;
      while (end < items.length && key(items[end]) !== undefined) end++;
      sorted.push(...items.slice(i, end).sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0)));
      if (end === i) sorted.push(items[end++]);
      i = end;
    }
    items = sorted;
  }
  return items;
}
