// Plays one scenario at one gateway and records what every client receives, step
// by step. A step ends when nothing can be under way any more, which is proved
// with sentinels: requests that a gateway must answer, first by the client that
// acted and then by all others.
import { WebSocket } from "ws";
import { within } from "../fabric.mjs";
import { Holding, Seeing } from "./holding.mjs";
import { Names } from "./names.mjs";
import { verbs } from "./verbs.mjs";

const LIMIT = 5_000; // ms that an answer may take
const SHORT = 100; // ms of patience in a scenario that has gone wrong

let plays = 0;

/** Stuck is a scenario that cannot go on: the gateway did not send what the next step needs. */
export class Stuck extends Error {}

/**
 * play gives the steps of a scenario, and the reason where it got stuck. satisfied
 * tells whether a step has all that it should, where that is known from another
 * gateway; then patience is how many ms are waited for more.
 */
export async function play(scenario, url, { satisfied = () => true, patience = 0 } = {}) {
  const stage = new Stage(url, satisfied, patience);
  let stuck;
  try {
    await scenario.play(stage);
    await stage.agree();
  } catch (e) {
    if (!(e instanceof Stuck)) throw new Error(`${scenario.name}, after ${stage.steps.length} steps`, { cause: e });
    stuck = e.message;
  } finally {
    await stage.end();
  }
  return { steps: stage.steps, stuck, apart: stage.apart };
}

class Stage {
  steps = [];
  clients = [];
  names = new Names(`~${++plays}`);
  contexts = new Set(); // ids of those that were created
  #satisfied;
  #patience;
  #counts = new Map();
  #wake = () => {};

  constructor(url, satisfied, patience) {
    this.url = url;
    this.#satisfied = satisfied;
    this.#patience = patience;
  }

  /** open connects a client, and no more. */
  async open(name, { path = "/", headers, protocols } = {}) {
    const client = new Client(this, name);
    this.clients.push(client);
    await this.step(client, "open", [], () => client.connect(new URL(path, this.url), protocols, headers));
    return client;
  }

  /** client connects a client that says hello and joins domains. */
  async client(name, { join = [], restrictions, ...hello } = {}) {
    const client = await this.open(name);
    await client.hello(hello);
    for (const destination of join) await client.join(destination, { restrictions });
    return client;
  }

  /** own is a name for a context that no other scenario uses. */
  own(name) {
    return typeof name === "string" && name !== "" ? name + this.names.suffix : name;
  }

  /** step does something as a client, and records what comes of it. */
  async step(client, what, sent, act) {
    const key = this.#key(`${client.name} ${what}`);
    await act();
    await this.#settle(client);
    let step = this.#record(key, sent);
    for (const end = Date.now() + this.#patience; !this.#satisfied(step.step, this.steps.length) && Date.now() < end; ) {
      await this.#more(end - Date.now());
      step = this.#record(key, sent);
    }
    if (this.#patience && !this.#satisfied(step.step, this.steps.length)) this.#patience = SHORT;
    this.steps.push(step.step);
    this.names = step.names;
    for (const c of this.clients) c.received.splice(0, step.counts.get(c));
  }

  #key(what) {
    const n = (this.#counts.get(what) ?? 0) + 1;
    this.#counts.set(what, n);
    return n === 1 ? what : `${what}/${n}`;
  }

  async #settle(first) {
    await first.sentinel();
    await Promise.all(this.clients.filter((c) => c !== first).map((c) => c.sentinel()));
  }

  // A record of what has come so far. More may come until the step ends, so that
  // names are given in a copy.
  #record(key, sent) {
    const names = this.names.copy();
    const got = {};
    const counts = new Map();
    const frames = this.clients.flatMap((c) => c.received.map((item) => [c, item.frame]));
    // Whose peer it is says the welcome, which another client's news of it may precede.
    for (const first of [true, false]) for (const [c, frame] of frames) if ((frame?.type === "welcome") === first) names.learn(c, frame);
    for (const c of this.clients) counts.set(c, c.received.length);
    for (const c of this.clients) {
      const items = c.received.map((item) => ({ ...item, ...named(names, item, ["frame", "saw", "sees"]) }));
      if (items.length > 0) got[c.name] = items;
    }
    return { step: { key, sent: sent.map((m) => names.apply(m)), got }, names, counts };
  }

  #more(ms) {
    let timer;
    return new Promise((resolve) => {
      timer = setTimeout(resolve, ms);
      this.#wake = resolve;
    }).finally(() => clearTimeout(timer));
  }

  arrived() {
    this.#wake();
  }

  /**
   * agree notes the contexts of which members hold different objects in the end, and
   * is patient: a member may still have to be told.
   */
  async agree() {
    for (const end = Date.now() + this.#patience; ; await this.#more(end - Date.now())) {
      this.apart = [...this.contexts].filter((id) => new Set(this.clients.flatMap((c) => c.holds(id))).size > 1).map((id) => this.names.apply(id));
      if (this.apart.length === 0 || Date.now() >= end) return;
    }
  }

  /** end leaves nothing behind: neither contexts nor peers in any domain. */
  async end() {
    for (const c of this.clients) await c.leaveNothing(this.contexts);
    await Promise.all(this.clients.map((c) => c.hangUp()));
  }
}

class Client {
  received = []; // in this step: {frame}, {text}, {opened} or {closed}
  peers = []; // ids of peers that this connection has been
  identity; // that it said of itself
  #log = []; // all frames
  #waiting = new Map(); // request id -> function
  #expected = []; // frames that close waits for: {type, resolve}
  #holding = new Holding();
  #seeing = new Seeing();
  #joined = new Set(); // domains that it asked for
  #requests = 0;
  #sentinels = 0;
  #closed;

  constructor(stage, name) {
    this.stage = stage;
    this.name = name;
  }

  /** peer is the id that the gateway gave last. */
  get peer() {
    return this.peers.at(-1);
  }

  get #open() {
    return this.ws?.readyState === WebSocket.OPEN;
  }

  connect(url, protocols, headers) {
    const ws = (this.ws = new WebSocket(url, protocols, { headers, perMessageDeflate: true }));
    let why = "connection";
    ws.on("unexpected-response", (_, res) => {
      why = `HTTP ${res.statusCode}`;
      ws.terminate();
    });
    ws.on("error", (e) => (why = why === "connection" ? e.message : why));
    ws.on("message", (data, binary) => this.#arrive(data, binary));
    this.#closed = new Promise((resolve) => ws.once("close", resolve)).then(() => this.#take({ closed: why }));
    const opened = new Promise((resolve) => ws.once("open", resolve)).then(() => this.#take({ opened: { protocol: ws.protocol, extensions: ws.extensions } }));
    return within(LIMIT, `${this.name} to connect`, Promise.race([opened, this.#closed]));
  }

  #arrive(data, binary) {
    const frame = parse(String(data));
    if (typeof frame?.request_id === "string" && this.#waiting.has(frame.request_id)) {
      this.#waiting.get(frame.request_id)(frame);
      this.#waiting.delete(frame.request_id);
      if (isSentinel(frame)) return;
    }
    if (this.stage.names.foreign(frame)) return;
    this.#log.push(frame);
    for (const e of this.#expected) if (e.type === frame?.type) e.resolve();
    if (frame?.type === "welcome") this.peers.push(frame.peer_id);
    if (frame?.type === "context-created") this.stage.contexts.add(frame.context_id);
    this.#take({ ...(frame === undefined ? { text: String(data) } : { frame }), ...(binary && { binary }), ...this.#holding.received(frame), ...this.#seeing.received(frame) });
  }

  #take(item) {
    this.received.push(item);
    this.stage.arrived();
  }

  /** send sends frames one right after the other. What they lack is filled in: peer_id, request_id. */
  async send(...frames) {
    const sent = frames.map((m) => this.#complete(m));
    const what = sent.map((m) => m?.type ?? "raw").join("+");
    await this.stage.step(this, what, sent, () => {
      for (const m of sent) this.#write(typeof m === "string" ? m : JSON.stringify(m), m);
      return this.#welcomed(sent);
    });
  }

  // Authentication takes its time: only the answer to a hello may still be under
  // way when what was sent after it has been answered.
  #welcomed(sent) {
    return Promise.all(sent.filter((m) => m?.type === "hello").map((m) => this.#answer(m.request_id)));
  }

  /** sendBinary sends one frame as binary. */
  async sendBinary(frame) {
    const sent = this.#complete(frame);
    await this.stage.step(this, "binary", [sent], () => {
      this.#write(Buffer.from(JSON.stringify(sent)), sent);
      return this.#welcomed([sent]);
    });
  }

  #complete(m) {
    if (typeof m !== "object" || m === null || Array.isArray(m)) return m;
    const defaults = { request_id: `${this.name}${++this.#requests}`, ...(this.peer && m.type !== "hello" && { peer_id: this.peer }) };
    return { ...defaults, ...m };
  }

  #write(data, m) {
    this.#holding.sent(m);
    if (m?.type === "join" && m.destination) this.#joined.add(m.destination);
    if (m?.type === "hello") {
      this.identity = m.identity;
      if (m.identity?.machine) this.stage.names.machine(m.identity.machine);
    }
    this.ws.send(data);
  }

  #answer(id) {
    if (typeof id !== "string") return this.sentinel();
    const answer = new Promise((resolve) => this.#waiting.set(id, resolve));
    return within(LIMIT, `an answer to ${id} of ${this.name}`, Promise.race([answer, this.#closed]));
  }

  /** sentinel is over when the gateway has answered something that it was sent now. */
  async sentinel() {
    if (!this.#open) return;
    const id = `${sentinel}${++this.#sentinels}`;
    this.ws.send(JSON.stringify({ domain: "global", type: "join", destination: sentinel, request_id: id, peer_id: this.peer }));
    await this.#answer(id);
  }

  /** holds is the JSON of what it holds of a context, in a list, which is empty if it is no member. */
  holds(context) {
    return this.#open ? this.#holding.of(context) : [];
  }

  /** last is the newest frame of a type. */
  last(type) {
    const m = this.#log.findLast((f) => f?.type === type);
    if (!m) throw new Stuck(`${this.name} has not received ${type}`);
    return m;
  }

  /** close ends the connection; until is what tells another client that the gateway knows. */
  close(until) {
    return this.#end("close", until, () => this.ws.close());
  }

  /** break ends the connection without a word. */
  break(until) {
    return this.#end("break", until, () => this.ws.terminate());
  }

  async #end(what, [client, type], act) {
    await this.stage.step(this, what, [], async () => {
      const told = client.#next(type);
      act();
      await this.#closed;
      await told;
    });
  }

  // Over with the next frame of a type, or without it: then the comparison says that it is missing.
  #next(type) {
    const come = new Promise((resolve) => this.#expected.push({ type, resolve }));
    return within(LIMIT, `${type} for ${this.name}`, come).catch(() => {});
  }

  /** leaveNothing destroys contexts and leaves all domains. */
  async leaveNothing(contexts) {
    if (!this.#open) return;
    const requests = [...contexts].map((context_id) => ({ type: "destroy-context", context_id }));
    for (const peer_id of this.peers) {
      for (const destination of this.#joined) requests.push({ type: "leave", destination, peer_id });
    }
    await Promise.all(requests.map((m, i) => {
      this.ws.send(JSON.stringify({ domain: "global", peer_id: this.peer, request_id: `end${i}`, ...m }));
      return this.#answer(`end${i}`);
    }));
  }

  /** hangUp closes what is open. */
  async hangUp() {
    if (this.#open) this.ws.close();
    await this.#closed;
  }
}

Object.assign(Client.prototype, verbs);

const sentinel = "differential-sentinel";

const isSentinel = (m) => m.request_id.startsWith(sentinel);

// What an item has under these keys, with names in the place of ids.
function named(names, item, keys) {
  return Object.fromEntries(keys.filter((k) => k in item).map((k) => [k, names.apply(item[k])]));
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
