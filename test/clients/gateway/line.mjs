// A line between an app and its gateway that a test can cut and mend.
import { connect, createServer } from "node:net";
import { once } from "node:events";

export class Line {
  #sockets = new Set();
  #whole = true;

  /** to is a line to a gateway; it has the url and auth of one. */
  static async to(machine) {
    const line = Object.assign(new Line(), { machine });
    line.server = createServer((socket) => line.#accept(socket)).listen(0, "127.0.0.1");
    await once(line.server, "listening");
    line.url = `ws://127.0.0.1:${line.server.address().port}/`;
    return line;
  }

  get auth() {
    return this.machine.auth;
  }

  #accept(near) {
    if (!this.#whole) return near.destroy();
    const { hostname, port } = new URL(this.machine.url);
    const far = connect(Number(port), hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      this.#sockets.add(from);
      from.on("error", () => {}).on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
    // The gateway takes only requests that name it as their host.
    near.once("data", (head) => {
      far.write(head.toString("latin1").replace(/^Host: .*$/im, `Host: ${hostname}:${port}`), "latin1");
      near.pipe(far);
    });
    far.pipe(near);
  }

  /** cut ends all connections and lets none through. */
  cut() {
    this.#whole = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend() {
    this.#whole = true;
  }

  close() {
    this.cut();
    this.server.close();
  }
}
