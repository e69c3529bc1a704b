// Ids are made up by each gateway; here they get names that depend on the
// scenario alone: peer:a, instance:a, context:Prices, call#1, subscription#2.

/** Names belongs to one scenario at one gateway. */
export class Names {
  #names = new Map(); // id -> name
  #counts = new Map(); // kind -> how many
  #machines = new Set(); // that clients said of themselves

  /** suffix makes the names of this scenario's contexts unlike those of any other. */
  constructor(suffix) {
    this.suffix = suffix;
  }

  /** copy is for names that may turn out otherwise when more frames have come. */
  copy() {
    const n = new Names(this.suffix);
    n.#names = new Map(this.#names);
    n.#counts = new Map(this.#counts);
    n.#machines = new Set(this.#machines);
    return n;
  }

  /** foreign tells whether a frame is about a context of another scenario, which may have ended too late. */
  foreign(m) {
    return m?.type === "context-added" && /~\d+$/.test(m.name) && !m.name.endsWith(this.suffix);
  }

  /** machine is one that a client says of itself: it is compared as it is. */
  machine(name) {
    this.#machines.add(name);
  }

  /** learn takes what a frame from the gateway says of new ids. */
  learn(client, m) {
    if (!m || typeof m !== "object") return;
    if (m.type === "welcome") this.#welcome(client, m);
    if (m.type === "peer-added") this.#count(m.new_peer_id, "stranger");
    if (m.type === "invoke") this.#count(m.invocation_id, "call");
    if (m.type === "context-added") this.#called(m.context_id, this.apply(`context:${m.name}`));
    if (["context-created", "subscribed-context"].includes(m.type)) this.#count(m.context_id, "context");
    if (["add-interest", "subscribed", "event"].includes(m.type)) this.#count(m.subscription_id, "subscription");
  }

  #welcome(client, m) {
    this.#called(m.peer_id, `peer:${client.name}`);
    // An instance that the client chose is compared as it is.
    const { instance } = m.resolved_identity ?? {};
    if (instance !== client.identity?.instance) this.#called(instance, `instance:${client.name}`);
  }

  // The same name for another id is peer:a/2.
  #called(id, name) {
    if (typeof id !== "string" || this.#names.has(id)) return;
    const n = this.#next(name);
    this.#names.set(id, n === 1 ? name : `${name}/${n}`);
  }

  #count(id, kind) {
    if (typeof id === "string" && !this.#names.has(id)) this.#names.set(id, `${kind}#${this.#next(kind)}`);
  }

  #next(kind) {
    const n = (this.#counts.get(kind) ?? 0) + 1;
    this.#counts.set(kind, n);
    return n;
  }

  /** apply is a frame with names in the place of ids, tokens and the machine. */
  apply(v, key = "") {
    if (typeof v === "string") return this.#text(v, key);
    if (Array.isArray(v)) return v.map((x) => this.apply(x));
    if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, this.apply(x, k)]));
    return v;
  }

  #text(s, key) {
    if (key === "token" || key === "access_token") return s && "<token>";
    if (key === "machine") return s && !this.#machines.has(s) ? "<machine>" : s;
    const known = this.#names.get(s);
    if (known !== undefined) return known;
    return (key === "reason" ? this.#reason(s) : s).replaceAll(this.suffix, "");
  }

  #reason(s) {
    // The longest first: one id may begin with another.
    const ids = [...this.#names.keys()].sort((a, b) => b.length - a.length);
    return ids.reduce((text, id) => text.replaceAll(id, this.#names.get(id)), s);
  }
}
