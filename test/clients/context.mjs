// Shared contexts with nothing but a NATS connection, written from the package
// docs of kv, wire and subjects: the fold, reading, following, writing.
//
//   const client = new Context(nc, { realm: "ann", name: "client" });
//   await client.read();                                       // {exists, object, revision}
//   for await (const e of client.follow()) …                   // {kind, exists, object, revision, by}
//   await client.put(["limit"], 7);                            // [] is the whole object
//   await client.update([[["limit"], 7], [["name"], undefined]]); // all or none
//   await client.delete(["limit"]);
//
// Writes are JSON of a foreign writer, or with {node: true} what a node writes.
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import * as nats from "@nats-io/transport-node";
import { Queue } from "./stream.mjs";
import { WeftError, decode, encode, escape, isJSON, isObject, nameOf, token } from "./wire.mjs";

const ms = { answer: 5_000, rest: 1_000, check: 10_000, retry: 200 };
const most = { depth: 64, segments: 16, token: 96, key: 1024, batch: 1000, named: 512 };

// ---- keys (package subjects)

/** keyOf is the key of a path; undefined for a path that has none. */
export function keyOf(context, path) {
  const tokens = path.map(token);
  const key = `${context}.${tokens.length ? tokens.join(".") : "/"}`;
  const fits = tokens.length <= most.segments && key.length <= most.key && !tokens.some((t) => t.startsWith("=h"));
  return fits ? key : undefined;
}

/** parseKey is {context, path, meta}, undefined for what is no key of a context. */
export function parseKey(key) {
  const dot = key.indexOf(".");
  const [context, rest] = [key.slice(0, dot), key.slice(dot + 1)];
  const isName = (t) => t.length <= most.token && nameOf(t) !== undefined;
  if (dot < 0 || key.length > most.key || !(isName(context) || /^=h[a-z2-7]{26}$/.test(context))) return undefined;
  if (rest === "/" || rest === "//") return { context, path: [], meta: rest === "//" };
  const tokens = rest.split(".");
  if (tokens.length > most.segments || !tokens.every(isName)) return undefined;
  return { context, path: tokens.map(nameOf), meta: false };
}

// ---- the fold (package kv, "Contexts")

/** entryOf reads a message of Direct Get, or one that was republished. */
export function entryOf({ headers, data }, realm) {
  const prefix = `$KV.weft_${realm}_ctx.`;
  const subject = headers?.last("Nats-Subject") ?? ""; // the last value is the server's
  const seq = Number(headers?.last("Nats-Sequence"));
  if (!subject.startsWith(prefix) || !(seq > 0)) return undefined;
  const get = (name) => headers.get(name) || undefined;
  const number = (s) => (s === undefined || /^\d+$/.test(s) ? s && Number(s) : NaN);
  const marker = get("Nats-Marker-Reason") !== undefined;
  const e = { key: subject.slice(prefix.length), seq, data, marker, by: get("Weft-By") ?? "", write: get("Weft-Op"), ttl: get("Nats-TTL") };
  e.op = { DEL: "del", PURGE: "purge" }[get("KV-Operation")] ?? (marker ? "purge" : "put");
  e.asOf = number(get("Weft-As-Of"));
  e.compact = number(get("Weft-Compact"));
  e.bad = Number.isNaN(e.asOf) || Number.isNaN(e.compact);
  try {
    e.json = get("Content-Type") ? isJSON(headers) : e.write === undefined;
  } catch {
    e.bad = true;
  }
  const batch = get("Nats-Batch-Id");
  if (batch) e.batch = { id: batch, seq: Number(get("Nats-Batch-Sequence")), end: headers.has("Nats-Batch-Commit") };
  return e;
}

/** Fold is what the newest writes of the keys of one context make. */
export class Fold {
  #seqs = new Map(); // by key: the newest that is known, also of what counts as no write
  #writes = new Map(); // by key: {path, at, seq, revision, value}

  /** context is the token of the name. */
  constructor(context) {
    this.context = context;
  }

  /** add says whether the entry was news. */
  add(e) {
    const k = parseKey(e.key);
    if (k?.context !== this.context || k.meta || e.seq <= (this.#seqs.get(e.key) ?? 0)) return false;
    this.#seqs.set(e.key, e.seq);
    if (e.op !== "put" && (e.marker || e.compact > 0)) {
      this.#writes.delete(e.key);
      return true;
    }
    const w = { path: k.path, at: e.seq, seq: e.seq, revision: e.seq, value: e.op === "put" ? valueOf(e, k.path) : undefined };
    if (e.asOf > 0 && e.asOf < e.seq) {
      w.at = e.asOf;
      if (e.op === "put" && e.compact > 0 && e.compact < e.seq) w.revision = e.compact;
    }
    this.#writes.set(e.key, w);
    return true;
  }

  /** forget drops the keys that f names: (key, seq) => boolean. */
  forget(f) {
    for (const [key, seq] of this.#seqs) if (f(key, seq)) this.#seqs.delete(key), this.#writes.delete(key);
  }

  /** newest is the highest sequence that was added. */
  get newest() {
    return Math.max(0, ...this.#seqs.values());
  }

  /** keys is how many keys below the root have a write. */
  get keys() {
    return this.#writes.size - (this.#writes.has(`${this.context}./`) ? 1 : 0);
  }

  /** state is {exists, object, revision}. */
  state() {
    const writes = [...this.#writes.values()].sort((a, b) => a.at - b.at || a.seq - b.seq);
    const own = new WeakSet();
    const object = writes.reduce((v, w) => replace(v, w.path, w.value, own), undefined);
    const exists = this.#writes.get(`${this.context}./`)?.value !== undefined;
    return { exists, object: exists ? object : undefined, revision: exists ? Math.max(...writes.map((w) => w.revision)) : 0 };
  }
}

// valueOf is what a put says, undefined if it cannot be read.
function valueOf(e, path) {
  let value;
  try {
    value = e.bad ? undefined : decode(e.data, e.json);
  } catch (err) {
    if (!(err instanceof WeftError)) throw err;
  }
  if (path.length + levels(value) > most.depth) value = undefined;
  return path.length || isObject(value) ? value : {};
}

// levels is how many arrays and objects are inside each other.
const levels = (v) => (isObject(v) || Array.isArray(v) ? 1 + Object.values(v).reduce((n, x) => Math.max(n, levels(x)), 0) : 0);

// replace is v with x at path, undefined to delete. What is missing on the way,
// or is no object, becomes one. Objects of own are changed, others are copied.
function replace(v, [name, ...rest], x, own) {
  if (name === undefined) return x;
  const o = own.has(v) ? v : { ...(isObject(v) ? v : {}) };
  own.add(o);
  const value = rest.length ? replace(Object.hasOwn(o, name) ? o[name] : undefined, rest, x, own) : x;
  if (value === undefined) delete o[name];
  else Object.defineProperty(o, name, { value, enumerable: true, writable: true, configurable: true }); // also __proto__
  return o;
}

/** canonical is a value as JSON, names in byte order: equal values, equal text. */
export function canonical(v) {
  if (typeof v === "bigint") return String(v);
  if (v instanceof Uint8Array) return JSON.stringify(Buffer.from(v).toString("base64"));
  if (Array.isArray(v)) return `[${v.map(canonical)}]`;
  if (!isObject(v)) return JSON.stringify(v);
  const names = Object.keys(v).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return `{${names.map((k) => `${JSON.stringify(k)}:${canonical(v[k])}`)}}`;
}

// ---- a context

export class Context {
  /** by is <app>@<node> or @<name>; page is how many keys to ask for at a time. */
  constructor(nc, { realm, name, by, inbox = "_INBOX", page = 1000, check = ms.check }) {
    Object.assign(this, { nc, realm, name, by, inbox, page, every: check, token: token(name), bucket: `weft_${realm}_ctx` });
  }

  /** read is what the context is now: {exists, object, revision, keys}. */
  async read() {
    const fold = new Fold(this.token);
    for (const e of (await this.entries()).entries) fold.add(e);
    return { ...fold.state(), keys: fold.keys };
  }

  /** follow is an async iterator of what the context becomes. */
  follow() {
    return new Follower(this);
  }

  // entries reads the newest entry of each key that was written at or after a
  // sequence; upTo says how far that reaches, undefined if there is none.
  async entries(from) {
    for (;;) {
      const entries = new Map();
      const all = `$KV.${this.bucket}.${this.token}.>`;
      const upTo = await this.#pages({ multi_last: [all], seq: from }, entries).catch((e) => {
        if (e.code !== "limit") throw e;
        return this.#many(all, from, entries);
      });
      const list = [...entries.values()].sort((a, b) => a.seq - b.seq);
      const last = list.at(-1);
      if (!(last?.batch && last.seq === upTo && !last.batch.end)) return { entries: list, upTo };
      await pause(ms.retry); // the rest of the batch is being stored
    }
  }

  // #many reads so many keys that they have to be named, all up to one sequence.
  async #many(filter, from, entries) {
    const info = decode((await this.nc.request(`$JS.API.STREAM.INFO.KV_${this.bucket}`, JSON.stringify({ subjects_filter: filter }))).data, true);
    if (info.error) throw new WeftError("unavailable", `context ${this.name}: ${info.error.description}`);
    const subjects = Object.keys(info.state.subjects ?? {});
    for (let i = 0; i < subjects.length; i += most.named) {
      await this.#pages({ multi_last: subjects.slice(i, i + most.named), seq: from, up_to_seq: info.state.last_seq }, entries);
    }
    return info.state.last_seq;
  }

  // #pages reads the whole answer to a request, and how far it reaches.
  async #pages(q, entries) {
    for (;;) {
      const { last, upTo, pending } = await this.#page({ ...q, batch: this.page }, entries);
      if (!pending) return upTo;
      q = { ...q, seq: last + 1, up_to_seq: upTo };
    }
  }

  // #page reads the answer to one request up to its end.
  async #page(q, entries) {
    const inbox = nats.createInbox(this.inbox);
    const sub = this.nc.subscribe(inbox);
    const late = setTimeout(() => sub.unsubscribe(), ms.answer);
    try {
      this.nc.publish(`$JS.API.DIRECT.GET.KV_${this.bucket}`, JSON.stringify(q), { reply: inbox });
      let last = 0;
      for await (const m of sub) {
        const { code, description } = m.headers?.has("Nats-Subject") ? {} : (m.headers ?? {}); // a stored one has any headers
        if (code === 204) return { last, upTo: Number(m.headers.get("Nats-UpTo-Sequence")), pending: last && Number(m.headers.get("Nats-Num-Pending")) };
        if (code === 404 && description === "No Results") return {};
        if (code) throw new WeftError(code === 413 ? "limit" : "unavailable", `context ${this.name}: ${code} ${description}`);
        const e = entryOf(m, this.realm);
        if (!e) continue;
        entries.set(e.key, e);
        last = e.seq;
      }
      throw new WeftError("unavailable", `context ${this.name}: no answer`);
    } finally {
      clearTimeout(late);
      sub.unsubscribe();
    }
  }

  // ---- writing

  /** put sets the value at a path; options are {node, by, ttl}. It gives the sequence. */
  put(path, value, options) {
    return this.update([[path, value]], options);
  }

  /** delete is `nats kv del`. */
  delete(path, options) {
    return this.update([[path, undefined]], options);
  }

  /** purge is `nats kv purge`: also what was there before is gone. */
  purge(path, options) {
    return this.update([[path, undefined]], { ...options, headers: { "KV-Operation": "PURGE", "Nats-Rollup": "sub" } });
  }

  /** update writes [path, value] pairs, undefined deletes: one atomic batch. */
  async update(changes, options = {}) {
    if (!changes.length || changes.length > most.batch) throw new WeftError("limit", `${changes.length} writes, 1 to ${most.batch} make a batch`);
    const id = randomBytes(16).toString("base64url");
    const messages = changes.map(([path, value]) => this.#message(id, path, value, options));
    messages.forEach(({ headers }, i) => {
      if (messages.length === 1) return;
      headers.set("Nats-Batch-Id", id);
      headers.set("Nats-Batch-Sequence", String(i + 1));
      if (i === messages.length - 1) headers.set("Nats-Batch-Commit", "1");
    });
    const { subject, body, headers } = messages.pop();
    for (const m of messages) this.nc.publish(m.subject, m.body, { headers: m.headers });
    const ack = decode((await this.nc.request(subject, body, { headers, timeout: ms.answer })).data, true);
    if (ack.error) throw new WeftError("unavailable", `context ${this.name}: ${ack.error.description} (${ack.error.err_code})`);
    return ack.seq;
  }

  #message(id, path, value, { node, by = this.by, ttl, headers: more = {} }) {
    const key = keyOf(this.token, path);
    if (!key) throw new WeftError("bad-name", "the path has no key of its own: write what it is in");
    if (!path.length && value !== undefined && !isObject(value)) throw new WeftError("bad-payload", "a context is an object");
    if (path.length + levels(value) > most.depth) throw new WeftError("bad-payload", `deeper than ${most.depth}`);
    const headers = nats.headers();
    const set = (name, text) => text !== undefined && headers.set(name, text);
    if (value === undefined) set("KV-Operation", "DEL");
    if (node) set("Weft-Op", id), set("Nats-Msg-Id", `${id}.${key}`);
    if (nameOf(this.token) === undefined && !path.length) set("Weft-Name", escape(this.name));
    set("Weft-By", by);
    set("Nats-TTL", ttl);
    for (const [name, text] of Object.entries(more)) set(name, text);
    return { subject: `$KV.${this.bucket}.${key}`, headers, body: encode(value, !node) };
  }
}

/** Follower yields {kind: snapshot | changed | created | destroyed, …}. */
class Follower extends Queue {
  #waiting = []; // what is republished during a read
  #held = []; // members of a batch whose end has not come
  #reading = false;
  #again = false; // a read was asked for
  #upTo = 0; // of the newest read
  #checked = 0; // nothing up to here was missed
  #was;
  foreign = 0; // messages that are not the server's
  reads = 0;
  caught = 0; // writes that only a check found

  constructor(context) {
    super(() => this.stop());
    const { nc, realm } = (this.context = context);
    this.fold = new Fold(context.token);
    const root = `weft.${realm}.kv.ctx`;
    this.sub = nc.subscribe(`${root}.${context.token}.>`, {
      callback: (err, m) => {
        const e = err ? undefined : entryOf(m, realm);
        if (e && `${root}.${e.key}` === m.subject) this.#take(e);
        else this.foreign++;
      },
    });
    this.status = nc.status();
    this.#watch();
    this.#read();
    this.timer = setInterval(() => this.#check(), context.every).unref();
  }

  stop() {
    this.stopped = true;
    this.sub.unsubscribe();
    this.status.stop();
    clearInterval(this.timer);
    clearTimeout(this.late);
  }

  async #watch() {
    for await (const s of this.status) if (s.type === "reconnect") this.#read();
  }

  // #read makes the fold what the bucket has, and then takes what came meanwhile.
  async #read() {
    this.#again = true;
    this.#held = [];
    if (this.#reading) return;
    this.#reading = true;
    for (let tries = 0; this.#again && !this.stopped; tries++) {
      this.#again = false;
      const got = await this.context.entries().catch(() => undefined);
      if (!got) this.#again = true;
      // Less than before: from a server that lags, or of a bucket made anew.
      else if ((got.upTo ?? 0) < this.fold.newest && tries < 3) this.#again = true;
      else this.#replace(got);
      if (this.#again) await pause(Math.min(ms.retry << tries, 5_000), undefined, { ref: false });
    }
    this.#reading = false;
    for (const e of this.#waiting.splice(0)) this.#take(e);
  }

  #replace({ entries, upTo = 0 }) {
    const keys = new Set(entries.map((e) => e.key));
    const anew = upTo < this.fold.newest;
    this.fold.forget((key, seq) => anew || (!keys.has(key) && seq <= upTo));
    this.#upTo = this.#checked = upTo;
    this.reads++;
    this.#emit(entries.filter((e) => this.fold.add(e)));
  }

  // #take is one republished write.
  #take(e) {
    if (this.stopped) return;
    if (this.#reading) return void this.#waiting.push(e);
    if (e.seq <= this.#upTo) return;
    const last = this.#held.at(-1);
    if (!last && !e.batch) return this.#apply([e]);
    const follows = last ? last.batch.id === e.batch?.id && last.batch.seq + 1 === e.batch.seq : e.batch.seq === 1 || e.seq - 1 <= this.#upTo;
    clearTimeout(this.late);
    if (!follows) return void this.#read(); // a part is missing
    this.#held.push(e);
    if (e.batch.end) return this.#apply(this.#held.splice(0));
    this.late = setTimeout(() => this.#read(), ms.rest).unref();
  }

  // #check reads what was written since the last time: what was lost is among it.
  async #check() {
    if (this.#reading) return;
    const got = await this.context.entries(this.#checked + 1).catch(() => undefined);
    if (!got || this.stopped || this.#reading) return;
    if ((got.upTo ?? 0) < (got.upTo === undefined ? this.fold.newest : this.#checked)) return void this.#read();
    this.#checked = got.upTo ?? this.#checked;
    this.caught += this.#apply(got.entries);
  }

  #apply(entries) {
    const news = entries.filter((e) => this.fold.add(e));
    if (news.length) this.#emit(news);
    return news.length;
  }

  #emit(news) {
    const [was, now] = [this.#was, this.fold.state()];
    const newest = news.reduce((a, b) => (a?.seq > b.seq ? a : b), undefined);
    if (newest && !newest.compact) this.by = newest.by;
    this.#was = now;
    const event = { ...now, by: this.by ?? "", keys: this.fold.keys };
    if (!was) this.put({ kind: "snapshot", ...event });
    else if (was.exists !== now.exists) this.put({ kind: now.exists ? "created" : "destroyed", ...event });
    else if (!isDeepStrictEqual(was.object, now.object)) this.put({ kind: "changed", ...event });
  }
}
