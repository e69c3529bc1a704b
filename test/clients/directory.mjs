// The directory as a client reads it: the documents of nodes, and the manifests
// with the methods and streams of their apps.
import * as nats from "@nats-io/transport-node";
import { WeftError, decode, sha } from "./wire.mjs";

export class Directory {
  #manifests = new Map(); // by hash
  nodes = new Map(); // by id: {seq, doc}; doc is undefined when it is gone

  /** gone gets the id of each node whose document is purged. */
  constructor(weft, gone) {
    Object.assign(this, { weft, gone, bucket: `weft_${weft.realm}_dir` });
  }

  /** servers lists who offers a method or stream: {node, app, def, identity}. */
  async servers(name, streaming = false) {
    const list = [];
    for (const [node, { doc }] of this.nodes) {
      for (const { identity, manifests } of doc?.apps ?? []) {
        for (const hash of manifests ?? []) {
          for (const def of (await this.#manifest(node, hash)).methods) {
            if (def.name.toLowerCase() === name.toLowerCase() && !!def.streaming === streaming) list.push({ node, app: identity.app, def, identity });
          }
        }
      }
    }
    return list;
  }

  // #manifest reads a manifest once, from the bucket or else from its node.
  async #manifest(node, hash) {
    if (this.#manifests.has(hash)) return this.#manifests.get(hash);
    const m = await this.weft.nc.request(`$JS.API.DIRECT.GET.KV_${this.bucket}.$KV.${this.bucket}.if.${hash}`);
    const bytes = m.headers?.get("Nats-Subject") ? m.data : (await this.weft.ctl(node, "info", { manifest: hash })).manifest;
    if (sha(bytes) !== hash) throw new WeftError("bad-payload", `manifest ${hash} has other bytes`);
    this.#manifests.set(hash, decode(bytes, false, 4));
    return this.#manifests.get(hash);
  }

  /** sync reads all documents; who calls it follows kv.dir.n.> already. */
  async sync() {
    const { nc, name, realm } = this.weft;
    const inbox = nats.createInbox(`_R.${name}`);
    const sub = nc.subscribe(inbox);
    for (const n of this.nodes.values()) n.seq = 0; // a bucket that was made anew counts from 1
    const body = JSON.stringify({ multi_last: [`$KV.${this.bucket}.n.*`] });
    nc.publish(`$JS.API.DIRECT.GET.KV_${this.bucket}`, body, { reply: inbox });
    const found = new Set();
    for await (const m of sub) {
      if (m.headers?.code === 503) throw new WeftError("unavailable", `realm ${realm} has no directory: weft admin provision ${realm}`);
      if (!m.headers?.get("Nats-Subject")) break; // 204, the end, or 404, there is nobody
      found.add(this.entry(m));
    }
    for (const id of this.nodes.keys()) if (!found.has(id)) this.nodes.delete(id);
  }

  /** entry takes a write of the bucket, read or republished. */
  entry({ headers, data }) {
    const id = headers.get("Nats-Subject").split(".").at(-1);
    const seq = Number(headers.get("Nats-Sequence"));
    if (seq <= (this.nodes.get(id)?.seq ?? 0)) return id;
    if (headers.get("KV-Operation") || headers.get("Nats-Marker-Reason")) {
      this.nodes.set(id, { seq });
      this.gone(id);
      return id;
    }
    const doc = decode(data, false, 4);
    if (doc.v === 1 && doc.node === id) this.nodes.set(id, { seq, doc });
    return id;
  }
}
