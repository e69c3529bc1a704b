// FDC3 apps: @interopio/fdc3 on @interopio/desktop, as their makers ship them.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { eventually, within } from "../fabric.mjs";
import { Log } from "./apps.mjs";
import { title } from "./compatibility.mjs";
import { Desk } from "./desk.mjs";
import { fdc3, version } from "./fdc3.mjs";

/** Agent runs an FDC3 app in a thread. */
class Agent {
  #calls = new Map();
  said = new Log();

  static async start(machine, application) {
    const agent = new Agent();
    const { url, auth } = machine;
    agent.worker = new Worker(new URL("fdc3-app.mjs", import.meta.url), { workerData: { gateway: { url, auth }, application, bundle: fdc3() } });
    const ready = new Promise((resolve, reject) => {
      agent.worker.on("error", reject);
      agent.worker.on("message", ({ ready, instance, said, id, result, error }) => {
        if (ready) resolve(Object.assign(agent, { application, instance }));
        else if (said) agent.said.add(said);
        else if (error) agent.#calls.get(id).reject(new Error(error));
        else agent.#calls.get(id).resolve(result);
      });
    });
    return within(10_000, `${application} to start`, ready);
  }

  /** run runs f(fdc3, say, ...args) in the app; what it says goes to the log. */
  run(f, ...args) {
    const id = this.#calls.size;
    const answer = new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    this.worker.postMessage({ id, code: String(f), args });
    return within(10_000, `${this.application}: ${f}`, answer);
  }

  stop() {
    return this.worker.terminate();
  }
}

/** find runs in an app: an intent and who handles it, or nothing. */
async function find(fdc3, say, intent) {
  const found = await fdc3.findIntent(intent).catch(() => undefined);
  return found?.apps.length ? found : undefined;
}

const library = `@interopio/fdc3 ${version}`;

for (const nodes of [1, 2]) {
  describe(nodes === 1 ? "one node" : "two nodes", () => {
    let desk, a, b;
    before(async () => {
      desk = await Desk.start({ machines: nodes });
      [a, b] = await Promise.all([Agent.start(desk.machines[0], "blotter"), Agent.start(desk.machines.at(-1), "chart")]);
    });
    after(async () => {
      await Promise.all([a?.stop(), b?.stop()]);
      await desk?.stop();
    });
    const test = (feature, f) => it(title({ feature: `FDC3: ${feature}`, clients: [library], nodes, fabric: "embedded" }), { timeout: 20_000 }, f);

    test("getInfo, getUserChannels", async () => {
      const info = await a.run((fdc3) => fdc3.getInfo());
      assert.match(info.fdc3Version, /^2\./);
      assert.deepEqual([info.appMetadata.appId, info.appMetadata.instanceId], ["blotter", a.instance]);
      for (const agent of [a, b]) {
        const channels = await agent.run(async (fdc3) => (await fdc3.getUserChannels()).map(({ id, type, displayMetadata }) => ({ id, type, color: displayMetadata?.color })));
        assert.equal(channels.length, 8, "those that FDC3 recommends");
        assert.ok(channels.every((c) => c.type === "user" && c.id && c.color));
      }
    });

    test("joinUserChannel, getCurrentChannel, broadcast", async () => {
      const [channel] = await a.run(async (fdc3) => (await fdc3.getUserChannels()).map((c) => c.id).filter((id) => /red|channel.1$/i.test(id)));
      assert.equal(await a.run(async (fdc3) => (await fdc3.getCurrentChannel())?.id), null);
      for (const agent of [a, b]) {
        await agent.run((fdc3, say, id) => fdc3.joinUserChannel(id), channel);
        assert.equal(await agent.run(async (fdc3) => (await fdc3.getCurrentChannel()).id), channel);
      }
      await b.run(async (fdc3, say) => {
        await fdc3.addContextListener("fdc3.instrument", (context, metadata) => say({ instrument: context, from: metadata.source }));
        await fdc3.addContextListener(null, (context) => say({ any: context.type }));
      });
      await a.run((fdc3) => fdc3.broadcast({ type: "fdc3.instrument", id: { ticker: "VOD.L" }, name: "Vodafone ü" }));
      const { from, instrument } = await b.said.until("the context", (all) => all.find((s) => s.instrument));
      assert.deepEqual(instrument, { type: "fdc3.instrument", id: { ticker: "VOD.L" }, name: "Vodafone ü" });
      assert.deepEqual([from.appId, from.instanceId], ["blotter", a.instance]);
      await a.run((fdc3) => fdc3.broadcast({ type: "fdc3.contact", name: "Ann" }));
      await b.said.until("the contact", (all) => all.some((s) => s.any === "fdc3.contact"));
      assert.equal(b.said.all.filter((s) => s.instrument).length, 1, "only of its type");
      const current = await b.run(async (fdc3) => (await fdc3.getCurrentChannel()).getCurrentContext("fdc3.instrument"));
      assert.equal(current.id.ticker, "VOD.L");
      for (const agent of [a, b]) await agent.run((fdc3) => fdc3.leaveCurrentChannel());
      assert.equal(await a.run(async (fdc3) => (await fdc3.getCurrentChannel())?.id), null);
    });

    test("app channels", async () => {
      await b.run(async (fdc3, say) => {
        const channel = await fdc3.getOrCreateChannel("orders");
        await channel.addContextListener("fdc3.order", (context, metadata) => say({ order: context, from: metadata.source.instanceId }));
      });
      const type = await a.run(async (fdc3) => {
        const channel = await fdc3.getOrCreateChannel("orders");
        await channel.broadcast({ type: "fdc3.order", id: { id: "7" } });
        return channel.type;
      });
      assert.equal(type, "app");
      const said = await b.said.until("the order", (all) => all.find((s) => s.order));
      assert.deepEqual(said, { order: { type: "fdc3.order", id: { id: "7" } }, from: a.instance });
    });

    test("intents", async () => {
      await b.run((fdc3, say) => fdc3.addIntentListener("ViewChart", (context, metadata) => {
        say({ intent: context, from: metadata?.source?.instanceId });
        return { type: "chart.shown", of: context.id.ticker };
      }));
      const found = await eventually("the intent to be found", () => a.run(find, "ViewChart"));
      assert.equal(found.intent.name, "ViewChart");
      assert.ok(found.apps.some((app) => app.appId === "chart"), JSON.stringify(found.apps));
      const raised = await a.run(async (fdc3) => {
        const resolution = await fdc3.raiseIntent("ViewChart", { type: "fdc3.instrument", id: { ticker: "BMW" } });
        return { intent: resolution.intent, source: resolution.source, result: await resolution.getResult() };
      });
      assert.deepEqual([raised.intent, raised.source.appId, raised.result], ["ViewChart", "chart", { type: "chart.shown", of: "BMW" }]);
      const said = await b.said.until("the intent", (all) => all.find((s) => s.intent));
      assert.deepEqual(said.intent, { type: "fdc3.instrument", id: { ticker: "BMW" } });
      const at = await a.run(async (fdc3, say, instanceId) => {
        const resolution = await fdc3.raiseIntent("ViewChart", { type: "fdc3.instrument", id: { ticker: "SAP" } }, { appId: "chart", instanceId });
        return resolution.getResult();
      }, b.instance);
      assert.deepEqual(at, { type: "chart.shown", of: "SAP" });
    });

    test("an intent that fails", async () => {
      await b.run((fdc3) => fdc3.addIntentListener("Fail", () => Promise.reject(new Error("no chart"))));
      await eventually("the intent to be found", () => a.run(find, "Fail"));
      await assert.rejects(a.run(async (fdc3) => (await fdc3.raiseIntent("Fail", { type: "fdc3.nothing" })).getResult()));
      await assert.rejects(a.run((fdc3) => fdc3.raiseIntent("Nobody.Does", { type: "fdc3.nothing" })), /NoAppsFound/);
    });
  });
}
