// A desk: machines with a Weft node and its gateway each, on the embedded NATS
// server of the first or on a cluster of three servers.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Fabric, build, within } from "../fabric.mjs";

export class Desk {
  machines = [];

  /** start is a desk with so many machines in the first of realms; args go to every node. */
  static async start({ machines = 2, cluster = false, realms = ["desk"], args = [] } = {}) {
    const desk = new Desk();
    desk.fabric = Fabric.empty(realms[0]);
    try {
      if (cluster) desk.cluster = await desk.#cluster(realms);
      for (let i = 1; i <= machines; i++) await desk.add(`n${i}`, { args });
      if (!cluster) for (const realm of realms.slice(1)) await desk.weft("admin", "provision", realm, "--replicas", "1");
    } catch (e) {
      await desk.stop();
      throw e;
    }
    return desk;
  }

  async #cluster(realms) {
    this.servers = this.fabric.program(build("./test/clients/cluster"), ...realms);
    const { nats } = JSON.parse(await this.servers.line(/^\{"nats"/, 60_000));
    this.fabric.env.NATS_URL = nats;
    return nats;
  }

  /** weft runs a command that must succeed, and gives what it prints. */
  async weft(...args) {
    const { code, stdout, stderr } = await this.fabric.run(...args);
    assert.equal(code, 0, `weft ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  /** add starts another machine, in another realm if one is given. */
  async add(id, { args = [], realm } = {}) {
    const nats = this.cluster ?? this.machines[0]?.nats;
    const more = realm ? ["--realm", realm] : [];
    const machine = new Machine(this.fabric, id, nats ? ["--nats", nats] : [], [...args, ...more]);
    await machine.start();
    this.machines.push(machine);
    return machine;
  }

  /** stop ends everything that was started; the cluster cleans up when its input ends. */
  async stop() {
    this.servers?.child.stdin.end();
    if (this.servers) await within(10_000, "the cluster to end", this.servers.exit).catch(() => {});
    await this.fabric.stop();
  }
}

/** Machine is a node with a gateway that keeps its ports when it starts again. */
class Machine {
  constructor(fabric, id, join, args) {
    Object.assign(this, { fabric, id, name: `machine-${id}`, join, args, listen: "127.0.0.1:0" });
    this.hosts = join.length === 0;
    if (this.hosts) this.join = ["--nats-listen", "127.0.0.1:0"];
  }

  async start() {
    this.node = await this.fabric.up(this.id, "--machine", this.name, "--gateway-listen", this.listen, ...this.join, ...this.args);
    const { gateway, nats, gatewayAuth, tokenFile } = this.node.said;
    this.url = gateway;
    this.nats = nats;
    this.listen = new URL(gateway).host;
    if (this.hosts) this.join = ["--nats-listen", new URL(nats).host];
    this.auth = gatewayAuth === "token" ? { token: readFileSync(tokenFile, "utf8").trim() } : { username: "ann", password: "any" };
  }

  /** kill ends the node as a power cut does. */
  async kill() {
    this.node.kill("SIGKILL");
    await this.node.exit;
  }
}
