// A reference client of Weft for Node.js, written from the package docs of
// subjects and wire. It shows the wire; it is not a product.
// wire.mjs has names and payloads, directory.mjs who is here, stream.mjs streams.
//
//   const weft = await connect({ servers, user, pass, realm: "ann", name: "js" });
//   await weft.ask("Add", { a: 1, b: 2 });                    // a node chooses the server
//   await weft.call("Add", { a: 1, b: 2 });                   // this client chooses it
//   for await (const e of await weft.subscribe("Quotes")) …   // {kind, seq, value, …}
//   weft.publish("prices.eu", 1.5);
//   for await (const m of weft.topic("prices.*")) …           // {topic, publisher, value}
//   await weft.join({ application: "calc" });                 // be a node, to be found
//   await weft.serve({ name: "Twice" }, ({ n }) => ({ n: 2 * n }));
import { createHash, randomBytes } from "node:crypto";
import { hostname, userInfo } from "node:os";
import * as nats from "@nats-io/transport-node";
import { Directory } from "./directory.mjs";
import { Queue, Subscription } from "./stream.mjs";
import { WeftError, deadlineOf, decode, encode, errorOf, escape, injected, isJSON, nameOf, parseStream, patternTokens, sha, token, topicTokens } from "./wire.mjs";

export { WeftError } from "./wire.mjs";

const ms = { heartbeat: 3_000, lease: 10_000, call: 30_000, tick: 5_000 };

/** connect joins a realm. With options.name as in NATS permissions: <caller>. */
export async function connect({ realm, name, ...options }) {
  const nc = await nats.connect({ maxReconnectAttempts: -1, inboxPrefix: `_R.${name}`, ...options });
  const weft = new Weft(nc, realm, name);
  await weft.start();
  return weft;
}

export class Weft {
  #subs = new Map(); // by id: subscriptions to streams
  #methods = new Map(); // by lower-case name: {def, handler}
  #calls = new Map(); // being served, by caller and id
  #seen = new Set(); // ids of calls
  #turn = 0;
  dropped = 0;

  constructor(nc, realm, name) {
    Object.assign(this, { nc, realm, name, root: `weft.${realm}`, bucket: `weft_${realm}_dir` });
    this.gone = new EventTarget(); // an event is the id of a node that has left
    this.directory = new Directory(this, (id) => {
      this.gone.dispatchEvent(new Event(id));
      if (id === name && this.doc) this.assert().catch(() => {}); // purged while frozen
    });
  }

  async start() {
    this.listen(`${this.root}.kv.dir.n.>`, (m) => this.directory.entry(m), false);
    this.listen(`${this.root}.push.${this.name}.>`, (m) => {
      const [, , , , owner, id] = m.subject.split(".");
      const sub = this.#subs.get(id);
      if (sub?.server.node === owner) sub.push(parseStream(m.data));
    });
    await this.directory.sync();
    this.#watch();
    this.timer = setInterval(() => this.#subs.forEach((s) => s.tick()), ms.tick);
  }

  async #watch() {
    for await (const s of this.nc.status()) {
      if (s.type !== "reconnect") continue;
      await this.directory.sync().catch(() => {}); // the next reconnect tries again
      if (this.doc) await this.assert().catch(() => {});
      this.#subs.forEach((s) => s.resume());
    }
  }

  async close() {
    clearInterval(this.timer);
    clearInterval(this.beat);
    for (const s of this.#subs.values()) await s.close();
    const purge = { "KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "10m" };
    if (this.doc) for (const key of ["n", "lease"]) await this.#put(`${key}.${this.name}`, undefined, purge);
    await this.nc.close();
  }

  /** listen calls f for each message, in order. What only nodes and clients
   * write is guarded as package wire says; the bucket is the server's. */
  listen(subject, f, ours = true) {
    return this.nc.subscribe(subject, {
      callback: (err, m) => {
        if (err || (ours && injected(m.headers, m.data))) return void this.dropped++;
        f(m);
      },
    });
  }

  /** request sends and returns the reply's value, or throws its error. */
  async request(subject, value, { json = false, timeout = ms.call, headers = {}, extra = 0 } = {}) {
    const h = headersOf({ ...headers, "Content-Type": json ? "application/json" : undefined });
    try {
      const m = await this.nc.request(subject, encode(value, json), { timeout, headers: h });
      const error = errorOf(m.headers);
      if (error) throw error;
      return decode(m.data, isJSON(m.headers), extra);
    } catch (e) {
      throw natsError(e);
    }
  }

  ctl(node, verb, value, timeout = ms.heartbeat) {
    return this.request(`${this.root}.ctl.${node}.${this.name}.${verb}`, value, { timeout, extra: 4 });
  }

  // ---- methods

  /** ask calls a method by name; a node chooses the server. */
  ask(method, args, { timeout = ms.call, ...more } = {}) {
    return this.request(`${this.root}.ask.${this.name}.${token(method)}`, args, { timeout, ...more, headers: this.#callHeaders(method, timeout) });
  }

  #callHeaders(method, timeout, id = randomBytes(16).toString("base64url")) {
    const hashed = nameOf(token(method)) === undefined;
    return { "Weft-Id": id, "Weft-Deadline": timeout, "Weft-App": this.app, "Weft-Name": hashed ? escape(method) : undefined };
  }

  /** call calls a method on a server of the directory, in turns. */
  async call(method, args, { timeout = ms.call, signal, ...more } = {}) {
    const servers = await this.directory.servers(method);
    for (let i = 0, turn = this.#turn++; i < servers.length; i++) {
      const { node, app, def } = servers[(turn + i) % servers.length];
      const headers = this.#callHeaders(def.name, timeout);
      const subject = `${this.root}.call.${node}.${this.name}.${app}.${token(def.name)}`;
      const cut = new AbortController(); // ends the listeners below
      const ended = new Promise((_, reject) => {
        this.gone.addEventListener(node, () => reject(new WeftError("target-gone", `node ${node} has left`)), cut);
        signal?.addEventListener("abort", () => {
          this.ctl(node, "cancel", { id: headers["Weft-Id"] }).catch(() => {});
          reject(new WeftError("canceled", "canceled by the caller"));
        }, cut);
      });
      try {
        return await Promise.race([this.request(subject, args, { timeout, ...more, headers }), ended]);
      } catch (e) {
        if (!e.unsent) throw e; // it may have run: never tried again
      } finally {
        cut.abort();
      }
    }
    throw new WeftError(servers.length ? "target-gone" : "no-server", `nobody answers for ${method}`);
  }

  // ---- being a node

  /** join makes this client a node with one app, which can serve. */
  async join(identity) {
    const other = await this.ctl(this.name, "ping").catch(() => undefined);
    if (other) throw new WeftError("rejected", `node ${this.name} is alive`);
    const boot = randomBytes(6).toString("hex");
    const who = { user: userInfo().username, machine: createHash("sha256").update(hostname()).digest("hex").slice(0, 16) };
    this.app = `${boot}-1`;
    this.doc = { v: 1, node: this.name, boot, host: hostname(), version: "weft.mjs", clockOffset: 0, apps: [], ...who };
    this.doc.apps.push({ identity: { ...identity, ...who, node: this.name, app: this.app }, manifests: [] });
    this.listen(`${this.root}.call.${this.name}.>`, (m) => this.#serve(m));
    this.listen(`${this.root}.ctl.${this.name}.>`, (m) => this.#control(m));
    await this.nc.flush();
    await this.assert();
    this.beat = setInterval(() => this.#lease().catch(() => {}), ms.heartbeat); // the reconnect asserts
  }

  /** serve offers a method: (args, call) => result; call is {caller, app, id, signal}. */
  async serve(def, handler) {
    this.#methods.set(def.name.toLowerCase(), { def, handler });
    await this.assert();
  }

  /** assert writes lease, manifest and document, in this order. */
  async assert() {
    await this.#lease();
    const bytes = (this.manifest = encode({ methods: [...this.#methods.values()].map((m) => m.def) }));
    this.doc.apps[0].manifests = this.#methods.size ? [sha(bytes)] : [];
    await this.#put(`if.${sha(bytes)}`, bytes);
    await this.#put(`n.${this.name}`, encode(this.doc));
  }

  // #lease tells the server to purge our document in 10 s of its own time.
  async #lease() {
    const info = decode((await this.nc.request(`$JS.API.STREAM.INFO.KV_${this.bucket}`)).data, true);
    await this.#put(`lease.${this.name}`, undefined, {
      "Nats-Schedule": `@at ${new Date(Date.parse(info.ts) + ms.lease).toISOString()}`,
      "Nats-Schedule-Target": `$KV.${this.bucket}.n.${this.name}`,
      "Nats-Schedule-TTL": "10m",
      "KV-Operation": "PURGE",
    });
  }

  async #put(key, bytes, headers = {}) {
    const ack = decode((await this.nc.request(`$KV.${this.bucket}.${key}`, bytes, { headers: headersOf(headers) })).data, true);
    if (ack.error) throw new WeftError("unavailable", `${key}: ${ack.error.description}`);
  }

  async #serve(m) {
    const [, , , , from, app, method] = m.subject.split(".");
    const get = (k) => m.headers?.get(k) || undefined;
    const call = { caller: get("Weft-Caller") ?? from, app: get("Weft-App"), id: get("Weft-Id") };
    const key = `${from}.${call.id}`;
    let json = false;
    await this.#answer(m, () => json, async () => {
      json = isJSON(m.headers);
      const args = decode(m.data, json);
      const name = nameOf(method) ?? nameOf(get("Weft-Name") ?? "") ?? "";
      const found = app === this.app && token(name) === method && this.#methods.get(name.toLowerCase());
      if (!found) throw new WeftError("no-server", `app ${app} does not offer ${name}`);
      if (call.id && this.#seen.has(key)) throw new WeftError("rejected", "a call with this Weft-Id was received before");
      if (this.#seen.add(key).size > 1 << 17) this.#seen.delete(this.#seen.values().next().value); // the oldest
      const cancel = new AbortController();
      this.#calls.set(key, cancel);
      const late = AbortSignal.timeout(deadlineOf(m.headers));
      call.signal = AbortSignal.any([late, cancel.signal]);
      const ended = new Promise((_, reject) => call.signal.addEventListener("abort", () =>
        reject(late.aborted ? new WeftError("timeout", "out of time") : new WeftError("canceled", "canceled by the caller"))));
      try {
        return await Promise.race([found.handler(args, call), ended]);
      } finally {
        this.#calls.delete(key);
      }
    });
  }

  async #control(m) {
    const [, , , , from, verb] = m.subject.split(".");
    await this.#answer(m, () => false, () => {
      const q = decode(m.data, false, 4) ?? {};
      if (verb === "ping") return { node: this.name, boot: this.doc.boot };
      if (verb === "info" && q.manifest === sha(this.manifest)) return { manifest: this.manifest };
      if (verb === "cancel") return void this.#calls.get(`${from}.${q.id}`)?.abort();
      throw new WeftError("version", `${this.name} does not do ${verb}`);
    });
  }

  async #answer(m, json, f) {
    let [body, headers] = [new Uint8Array(), {}];
    try {
      body = encode(await f(), json());
    } catch (e) {
      const text = String(e.message).replace(/\p{Cc}+/gu, " ").trim().slice(0, 1000);
      headers = { "Weft-Error-Code": e instanceof WeftError ? e.code : "app-error", "Weft-Error": text };
    }
    m.respond(body, { headers: headersOf({ ...headers, "Content-Type": json() ? "application/json" : undefined }) });
  }

  // ---- topics

  publish(topic, value, { json = false, routingKey } = {}) {
    const tokens = topicTokens(topic);
    const headers = headersOf({
      "Weft-Name": tokens.split(".").some((t) => t.startsWith("=h")) ? escape(topic) : undefined,
      "Content-Type": json ? "application/json" : undefined,
      "Weft-Routing-Key": routingKey,
      "Weft-App": this.app,
    });
    this.nc.publish(`${this.root}.topic.${this.name}.${tokens}`, encode(value, json), { headers });
  }

  /** topic yields {topic, publisher, value, routingKey} until it is left. */
  topic(pattern) {
    const queue = new Queue(() => sub.unsubscribe());
    const sub = this.listen(`${this.root}.topic.*.${patternTokens(pattern)}`, (m) => {
      const [, , , publisher, ...tokens] = m.subject.split(".");
      const real = m.headers?.get("Weft-Name");
      const topic = (real ? nameOf(real) : tokens.map(nameOf).join(".")) ?? "";
      if (topicTokens(topic) !== tokens.join(".")) return void this.dropped++;
      try {
        queue.put({ topic, publisher, value: decode(m.data, isJSON(m.headers)), routingKey: m.headers?.get("Weft-Routing-Key") || undefined });
      } catch {
        this.dropped++;
      }
    });
    return queue;
  }

  // ---- streams

  /** subscribe yields {kind: subscribed | data | gap | closed, …}. */
  async subscribe(stream, args, options = {}) {
    const [server] = options.server ? [options.server] : await this.directory.servers(stream, true);
    if (!server) throw new WeftError("no-server", `nobody offers the stream ${stream}`);
    const s = new Subscription(this, this.#subs, server, args);
    await s.begin();
    return s.events;
  }
}

function headersOf(object) {
  const h = nats.headers();
  for (const [k, v] of Object.entries(object)) if (v !== undefined) h.set(k, String(v));
  return h;
}

function natsError(e) {
  if (e instanceof WeftError) return e;
  const cause = e.cause ?? e;
  const is = (type) => e instanceof type || cause instanceof type;
  if (is(nats.errors.NoRespondersError)) return Object.assign(new WeftError("target-gone", "nobody listens"), { unsent: true });
  if (is(nats.errors.TimeoutError)) return new WeftError("timeout", "no answer in time; it may or may not have run");
  if (is(nats.errors.PermissionViolationError)) return new WeftError("denied", e.message);
  return new WeftError("unavailable", e.message);
}
