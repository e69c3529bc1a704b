// Subscriptions to streams: the handshake on ctl, the order of one branch, its
// gaps, and how it goes on after the connection was lost.
import { randomBytes } from "node:crypto";
import { WeftError, parseStream, token } from "./wire.mjs";

const ms = { accept: 30_000, silent: 15_000 };

/** Subscription is the handshake and the order of one branch. */
export class Subscription {
  constructor(weft, all, server, args) {
    Object.assign(this, { weft, all, server, args, state: "starting", last: 0, private: 0, held: [], heard: Date.now(), unanswered: 0 });
    this.events = new Queue(() => this.close());
    this.live = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.live.catch(() => {}); // begin waits for it; later ones do not
    this.left = new AbortController();
    weft.gone.addEventListener(server.node, () => this.end(new WeftError("target-gone", "the publisher's node has left")), this.left);
  }

  async begin() {
    const { weft, server } = this;
    this.all.delete(this.id);
    this.id = randomBytes(16).toString("base64url");
    this.all.set(this.id, this);
    Object.assign(this, { state: "starting", private: 0, held: [], heard: Date.now() });
    const q = { id: this.id, app: weft.app ?? "", server: server.app, stream: server.def.name, args: this.args };
    try {
      const { branch = "", epoch } = await weft.ctl(server.node, "subscribe", q, ms.accept);
      if (this.joined && epoch !== this.epoch) this.gap(this.last + 1, undefined, "restarted"), (this.last = 0);
      Object.assign(this, { branch, epoch });
      this.sub?.unsubscribe();
      const subject = `${weft.root}.data.${server.node}.${server.app}.${token(server.def.name)}.${token(branch)}`;
      this.sub = weft.listen(subject, (m) => this.take(parseStream(m.data)));
      await this.live; // the first mark comes here when interest has spread
    } catch (e) {
      this.end(e);
      throw e;
    }
  }

  // take is a message of the branch.
  take(m) {
    if (!m || m.epoch !== this.epoch || this.state === "over") return;
    this.heard = Date.now();
    if (this.state === "starting") return void (m.kind === "mark" && this.repair(m.seq));
    if (this.state === "repairing") return void (m.kind === "data" && this.held.push(m));
    if (m.seq <= this.last) return;
    if (m.kind === "data" && m.seq === this.last + 1) return this.emit(m.seq, m.body);
    if (m.kind === "data") this.held.push(m);
    this.repair(m.kind === "data" ? m.seq - 1 : m.seq);
  }

  // repair confirms what the branch has reached, and gets what is kept of it.
  async repair(seq) {
    this.state = "repairing";
    const q = { id: this.id, epoch: BigInt(this.epoch), seq, after: this.last };
    const reply = await this.weft.ctl(this.server.node, "confirm", q).catch((e) => e);
    if (q.id !== this.id || this.state !== "repairing") return; // begun anew meanwhile
    if (reply.code === "target-gone" && !reply.unsent) return this.begin().catch(() => {}); // end has told
    if (!this.joined) {
      if (reply instanceof Error) return void Object.assign(this, { state: "starting", held: [] });
      this.joined = true;
      this.events.put({ kind: "subscribed", branch: this.branch, seq });
      this.last = reply?.items?.length ? reply.items[0].seq - 1 : seq;
    }
    for (const { seq, body } of reply?.items ?? []) {
      if (seq > this.last + 1) this.gap(this.last + 1, seq - 1, "lost");
      if (seq > this.last) this.emit(seq, body, true);
    }
    if (seq > this.last) this.gap(this.last + 1, seq, "lost"), (this.last = seq);
    this.state = "live";
    this.resolve();
    for (const m of this.held.splice(0)) this.take(m);
  }

  emit(seq, value, snapshot = false) {
    this.last = seq;
    this.events.put({ kind: "data", seq, value, snapshot, branch: this.branch });
  }

  gap(from, to, reason, isPrivate = false) {
    this.events.put({ kind: "gap", from, to, reason, private: isPrivate });
  }

  // push is private data, its mark, or the end.
  push(m) {
    if (!m || (this.epoch !== undefined && m.epoch !== this.epoch) || this.state === "over") return;
    const isNew = m.seq > this.private;
    const missing = m.kind === "data" ? m.seq - 1 : m.seq;
    if (isNew && missing > this.private) this.gap(this.private + 1, missing, "lost", true);
    if (isNew && m.kind === "data") this.events.put({ kind: "data", seq: m.seq, value: m.body, private: true, branch: this.branch });
    this.private = Math.max(this.private, m.seq);
    if (m.kind === "close") this.end(new WeftError(m.code, m.reason));
  }

  // resume asks the publisher how far the branch is.
  async resume() {
    if (!this.joined || this.state === "over") return;
    this.heard = Date.now();
    const q = { id: this.id, app: this.weft.app ?? "", server: this.server.app, stream: this.server.def.name, resume: true };
    const e = await this.weft.ctl(this.server.node, "subscribe", q).catch((e) => e);
    this.unanswered = e.unsent ? this.unanswered + 1 : 0;
    if (this.unanswered === 3) return this.end(new WeftError("target-gone", "the publisher's node has gone"));
    if (e.code === "target-gone" && !e.unsent) await this.begin().catch(() => {}); // end has told
  }

  // tick comes every 5 s. A subscriber that is not in the directory is forgotten
  // after 30 s without a resume.
  tick() {
    if (!this.weft.app || Date.now() - this.heard > ms.silent) this.resume();
  }

  end(error) {
    if (this.state === "over") return;
    this.state = "over";
    this.all.delete(this.id);
    this.sub?.unsubscribe();
    this.left.abort();
    this.reject(error);
    this.events.put({ kind: "closed", code: error.code, reason: error.message });
    this.events.end();
  }

  async close() {
    if (this.state === "over") return;
    this.end(new WeftError("canceled", "closed by the subscriber"));
    await this.weft.ctl(this.server.node, "unsubscribe", { id: this.id }).catch(() => {}); // it expires
  }
}

/** Queue is an async iterator that can be fed; leaving it calls done. */
export class Queue {
  #items = [];
  #wake = () => {};
  #ended = false;
  constructor(done) {
    this.done = done;
  }
  put(item) {
    this.#items.push(item);
    this.#wake();
  }
  end() {
    this.#ended = true;
    this.#wake();
  }
  async next() {
    while (this.#items.length === 0 && !this.#ended) await new Promise((r) => (this.#wake = r));
    return this.#items.length ? { value: this.#items.shift(), done: false } : { value: undefined, done: true };
  }
  async return() {
    await this.done();
    this.end();
    return { value: undefined, done: true };
  }
  [Symbol.asyncIterator]() {
    return this;
  }
}
