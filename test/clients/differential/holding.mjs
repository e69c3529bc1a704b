// What a client library makes of the frames that it receives: what it holds of the
// contexts that it is a member of, with deltas applied the way that the shipped
// libraries do it, and which peers and methods it sees.

/** Holding is what one client has. */
export class Holding {
  #objects = new Map(); // context id -> object
  #own = new Map(); // request id -> a delta of its own, applied when it succeeds
  #created = new Map(); // request id -> the data it sent

  /** sent notes requests whose answers change what the client holds. */
  sent(m) {
    if (m?.type === "update-context") this.#own.set(m.request_id ?? null, m);
    if (m?.type === "create-context") this.#created.set(m.request_id ?? null, m.data);
    if (m?.type === "unsubscribe-context") this.#objects.delete(m.context_id);
  }

  /**
   * received takes a frame. Where it says something of a held context, the result
   * is what the client then holds, and whether that is something else than before.
   */
  received(m) {
    switch (m?.type) {
      case "subscribed-context":
        return this.#hold(m.context_id, m.data ?? {});
      case "context-created":
        return this.#hold(m.context_id, this.#created.get(m.request_id) ?? {});
      case "context-updated":
        return this.#apply(m.context_id, m.delta);
      case "context-destroyed":
        this.#objects.delete(m.context_id);
        return undefined;
      case "success": {
        const own = this.#own.get(m.request_id);
        this.#own.delete(m.request_id);
        return own && this.#apply(own.context_id, own.delta);
      }
      default:
        return undefined;
    }
  }

  /** of is the JSON of the object of a context, in a list, which is empty if there is none. */
  of(id) {
    return this.#objects.has(id) ? [canonical(this.#objects.get(id))] : [];
  }

  #apply(id, delta) {
    return this.#objects.has(id) ? this.#hold(id, applyDelta(this.#objects.get(id), delta)) : undefined;
  }

  #hold(id, object) {
    const before = this.#objects.get(id);
    this.#objects.set(id, object);
    return { holds: JSON.parse(JSON.stringify(object)), changed: canonical(before) !== canonical(object) };
  }
}

/** Seeing is which peers one client sees in domain agm, with which methods. */
export class Seeing {
  #peers = new Map(); // peer id -> methods by their ids

  /** received takes a frame. Where it announces something, the result is what was seen before and is seen then. */
  received(m) {
    if (m?.domain !== "agm" || !/^(peer|methods)-(added|removed)$/.test(m.type)) return undefined;
    const saw = this.#all();
    const methods = this.#peers.get(m.server_id) ?? new Map();
    if (m.type === "peer-added") this.#peers.set(m.new_peer_id, new Map());
    if (m.type === "peer-removed") this.#peers.delete(m.removed_id);
    if (m.type === "methods-added") for (const d of m.methods ?? []) methods.set(d?.id, d);
    if (m.type === "methods-removed") for (const id of m.methods ?? []) methods.delete(id);
    if (m.type.startsWith("methods") && methods.size > 0) this.#peers.set(m.server_id, methods);
    return { saw, sees: this.#all() };
  }

  #all() {
    return [...this.#peers].map(([peer, methods]) => ({ peer, methods: [...methods.values()] }));
  }
}

/** applyDelta is what a client library makes of a delta; one that it cannot apply changes nothing. */
export function applyDelta(object, delta) {
  if (!delta) return object;
  if (delta.reset) return { ...delta.reset };
  try {
    return applyKeys(structuredClone(object), delta);
  } catch {
    return object;
  }
}

function applyKeys(object, delta) {
  if (delta.commands) {
    for (const c of delta.commands) {
      if (c.type === "set") setPath(object, c.path.split("."), c.value);
      if (c.type === "remove") removePath(object, c.path.split("."));
    }
    return object;
  }
  Object.assign(object, delta.added);
  for (const [key, value] of Object.entries(delta.updated ?? {})) {
    object[key] = mergeable(object[key]) && mergeable(value) ? { ...object[key], ...value } : value;
  }
  for (const key of delta.removed ?? []) delete object[key];
  return object;
}

const mergeable = (v) => v && typeof v === "object" && !Array.isArray(v);
const forbidden = ["__proto__", "constructor", "prototype"];

function setPath(object, path, value) {
  const last = path.pop();
  for (const key of path) {
    if (forbidden.includes(key)) throw new Error(`forbidden key ${key}`);
    if (!object[key] || typeof object[key] !== "object") object[key] = {};
    object = object[key];
  }
  object[last] = value ?? null; // a missing value reaches apps as undefined
}

function removePath(object, path) {
  const last = path.pop();
  for (const key of path) {
    if (!object[key]) return;
    object = object[key];
  }
  delete object[last];
}

/** canonical is the JSON of a value with the keys of its objects in order. */
export function canonical(value) {
  return JSON.stringify(value, (_, v) => (mergeable(v) ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1))) : v));
}
