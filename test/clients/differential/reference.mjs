// A program: the reference gateway on a free port of the loopback interface. It
// says where in one JSON line, and ends when its standard input does, so that it
// cannot outlive the test that started it.
import { createRequire } from "node:module";
import net from "node:net";

// The reference listens on all interfaces, whatever its configuration says.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, host, ...rest) {
  this.once("listening", () => process.stdout.write(`${JSON.stringify({ gateway: `ws://127.0.0.1:${this.address().port}` })}\n`));
  return listen.call(this, port, "127.0.0.1", ...rest);
};

const gateway = createRequire(import.meta.url)("@glue42/gateway-ws");
gateway.configure_logging({ level: "error", appender: ({ output }) => process.stderr.write(`${output}\n`) });
// Clients without an Origin are let in, all others have to be on the list.
const security = { origin_filters: { whitelist: ["https://listed.example"] } };
await gateway.create({ port: 0, security }).start();
process.stdin.on("end", () => process.exit(0)).resume();
