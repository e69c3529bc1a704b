// An FDC3 app, in a thread of its own because the library wants a window: runs
// the functions that it is sent, with window.fdc3, and posts what they say.
import { createRequire } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { library } from "./apps.mjs";

const { gateway, application, bundle } = workerData;
const io = await library("@interopio/desktop").connect(gateway, application, { logger: "off", channels: true });
globalThis.window = new EventTarget();
window.addEventListener("Glue42", ({ detail }) => {
  const event = detail.glue42.event;
  const answer = (name, message) => window.dispatchEvent(new CustomEvent("Glue42", { detail: { glue42: { event: name, message } } }));
  if (event === "notifyStarted") answer("start");
  if (event === "requestGlue") answer("requestGlueResponse", { glue: io });
});
const ready = new Promise((resolve) => window.addEventListener("fdc3Ready", resolve));
createRequire(import.meta.url)(bundle);
await ready;

parentPort.on("message", async ({ id, code, args }) => {
  try {
    const result = await new Function(`return (${code})`)()(window.fdc3, (said) => parentPort.postMessage({ said }), ...args);
    parentPort.postMessage({ id, result: JSON.parse(JSON.stringify(result ?? null)) });
  } catch (e) {
    parentPort.postMessage({ id, error: String(e?.message ?? e) });
  }
});
parentPort.postMessage({ ready: true, instance: io.interop.instance.instance });
