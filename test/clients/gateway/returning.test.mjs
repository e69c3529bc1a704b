// Apps that lose their gateway and come back. Their libraries then write what
// they last knew to every context, which must not undo what others wrote.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { within } from "../fabric.mjs";
import { App, Log, libraries, library } from "./apps.mjs";
import { follow, reads } from "./checks/contexts.mjs";
import { meet } from "./checks/suite.mjs";
import { title } from "./compatibility.mjs";
import { Desk } from "./desk.mjs";
import { Line } from "./line.mjs";

let names = 0;
const fresh = (name) => `${name}.${++names}`;

/** Guest is an app whose connection can be lost; its library comes back by itself. */
class Guest {
  static async join(library, machine) {
    const guest = new Guest();
    guest.line = await Line.to(machine);
    guest.events = new Log();
    guest.app = await App.join(library, guest.line, { gateway: { ws: guest.line.url, reconnectInterval: 100, reconnectAttempts: 1000 } });
    guest.app.io.connection.disconnected(() => guest.events.add("lost"));
    guest.app.io.connection.onLibReAnnounced(({ name }) => guest.events.add(name));
    return guest;
  }

  /** lose cuts its connection and waits until it knows. */
  async lose() {
    this.events.all.length = 0;
    this.line.cut();
    await this.events.until("the app knows", (all) => all.includes("lost"));
  }

  /** back mends it and waits until the library has told what it held. */
  async back() {
    this.line.mend();
    await this.events.until("the app is back", (all) => all.includes("interop") && all.includes("contexts"), 15_000);
  }

  async leave() {
    await this.app.leave();
    this.line.close();
  }
}

/** stays checks that no callback had n older after newer; two states can come as one. */
function stays({ log }, want) {
  assert.deepEqual(log.all.map((e) => e.data.n).filter((n, i, all) => n !== all[i - 1]), want);
}

for (const nodes of [1, 2]) {
  describe(nodes === 1 ? "one node" : "two nodes", () => {
    let desk;
    before(async () => {
      desk = await Desk.start({ machines: nodes });
    });
    after(() => desk?.stop());

    for (const l of libraries) {
      const test = (feature, f) => it(title({ feature: `returning: ${feature}`, clients: [l], nodes, fabric: "embedded" }), { timeout: 30_000 }, async () => {
        const home = await App.join(library("@interopio/core"), desk.machines[0], { gateway: { ws: desk.machines[0].url, reconnectInterval: 100, reconnectAttempts: 1000 } });
        const guest = await Guest.join(l, desk.machines.at(-1));
        try {
          await meet(home, [guest.app]);
          await f({ home, guest, machine: desk.machines.at(-1) });
        } finally {
          await guest.leave();
          await home.leave();
        }
      });

      /** held is a context that both follow, with n: 1. */
      const held = async ({ home, guest }) => {
        const name = fresh("Held");
        await home.io.contexts.set(name, { n: 1, client: "ACME" });
        const [at, away] = [await follow(home, name), await follow(guest.app, name)];
        await away.has({ n: 1, client: "ACME" });
        return { name, at, away };
      };

      /** settled is that all have the same in the end, a late joiner too. */
      const settled = async ({ home, guest }, { name, at, away }, want) => {
        await guest.app.io.contexts.update(name, { end: true });
        await at.has({ ...want, end: true });
        await away.has({ ...want, end: true });
        const late = await App.join(l, guest.app.gateway);
        assert.deepEqual(await reads(late, name), { ...want, end: true });
        await late.leave();
      };

      test("does not undo what others wrote", async (x) => {
        const context = await held(x);
        await x.guest.lose();
        await x.home.io.contexts.update(context.name, { n: 2 });
        await x.guest.back();
        await settled(x, context, { n: 2, client: "ACME" });
        stays(context.at, [1, 2]);
      });

      test("does not bring back what others removed", async (x) => {
        const context = await held(x);
        await x.guest.lose();
        await x.home.io.contexts.update(context.name, { client: null });
        await x.home.io.contexts.set(context.name, { n: 3, new: [] });
        await x.guest.back();
        await settled(x, context, { n: 3, new: [] });
      });

      test("does not bring back a destroyed context", async (x) => {
        const { name } = await held(x);
        await x.guest.lose();
        await x.home.io.contexts.destroy(name);
        await x.guest.back();
        const barrier = fresh("Barrier");
        await x.guest.app.io.contexts.set(barrier, {});
        await reads(x.home, barrier);
        assert.ok(!x.home.io.contexts.all().includes(name));
        assert.ok(!x.guest.app.io.contexts.all().includes(name));
      });

      test("does not undo across a restart of the gateway", async (x) => {
        const context = await held(x);
        await x.guest.lose();
        const announced = new Log();
        x.home.io.connection.onLibReAnnounced(({ name }) => announced.add(name));
        await x.machine.kill();
        await x.machine.start();
        if (nodes === 1) await announced.until("the other app is back", (all) => all.includes("contexts"), 15_000);
        await x.home.io.contexts.update(context.name, { n: 2, at: "home" });
        await x.guest.back();
        await settled(x, context, { n: 2, at: "home", client: "ACME" });
      });

      test("a toggle back to an old value counts", async (x) => {
        const context = await held(x);
        await x.guest.lose();
        await x.home.io.contexts.update(context.name, { n: 2 });
        await x.guest.back();
        await context.away.has({ n: 2, client: "ACME" });
        await x.guest.app.io.contexts.update(context.name, { n: 1 });
        await context.at.has({ n: 1, client: "ACME" });
        await x.home.io.contexts.update(context.name, { n: 2 });
        await context.away.has({ n: 2, client: "ACME" });
        await x.guest.app.io.contexts.set(context.name, { n: 1, client: "ACME" });
        await settled(x, context, { n: 1, client: "ACME" });
        stays(context.at, [1, 2, 1, 2, 1]);
      });

      test("a toggle right after coming back counts", async (x) => {
        const context = await held(x);
        await x.guest.app.io.contexts.update(context.name, { n: 2 });
        await context.at.has({ n: 2, client: "ACME" });
        await x.guest.lose();
        await x.guest.back();
        await x.guest.app.io.contexts.update(context.name, { n: 1 });
        await context.at.has({ n: 1, client: "ACME" });
        await settled(x, context, { n: 1, client: "ACME" });
      });

      test("an app that ended and starts again means what it says", async (x) => {
        const context = await held(x);
        const gone = fresh("Gone");
        const first = await App.join(l, desk.machines.at(-1), { application: "starts-again" });
        assert.deepEqual(await reads(first, context.name), { n: 1, client: "ACME" });
        await (await follow(first, context.name)).has({ n: 1, client: "ACME" });
        await first.io.contexts.set(gone, { n: 1 });
        await first.io.contexts.destroy(gone);
        await first.leave();
        await x.home.io.contexts.update(context.name, { n: 2 });
        const second = await App.join(l, desk.machines.at(-1), { application: "starts-again" });
        try {
          await (await follow(second, context.name)).has({ n: 2, client: "ACME" });
          await second.io.contexts.update(context.name, { n: 1 });
          await context.at.has({ n: 1, client: "ACME" });
          await second.io.contexts.set(gone, { n: 1 });
          assert.deepEqual(await reads(x.home, gone), { n: 1 });
          await second.io.contexts.destroy(gone);
          await settled(x, context, { n: 1, client: "ACME" });
        } finally {
          await second.leave();
        }
      });

      test("methods, streams and contexts are there again", async ({ home, guest }) => {
        const [method, feed, own] = [fresh("Method"), fresh("Feed"), fresh("Own")];
        await guest.app.io.interop.register(method, ({ n }) => ({ n: n + 1 }));
        const stream = await home.io.interop.createStream(feed);
        const mine = await guest.app.io.interop.createStream(own);
        await within(5_000, feed, guest.app.io.interop.waitForMethod(feed));
        const [data, connected] = [new Log(), new Log()];
        await guest.app.io.interop.subscribe(feed, { onData: (d) => data.add(d.data), onConnected: (s, again) => connected.add({ again }) });
        const context = await held({ home, guest });
        stream.push({ n: 1 });
        await data.entry(0);
        await guest.lose();
        await guest.back();
        await connected.until("subscribed again", (all) => all.length > 1);
        stream.push({ n: 2 });
        await data.until("the stream goes on", (all) => all.at(-1).n === 2);
        assert.equal(data.all.length, 2);
        await within(5_000, method, home.io.interop.waitForMethod(method));
        assert.deepEqual((await home.io.interop.invoke(method, { n: 1 })).returned, { n: 2 });
        const [heard, to] = [new Log(), await within(5_000, own, home.io.interop.waitForMethod(own))];
        await home.io.interop.subscribe(to.name, { onData: (d) => heard.add(d.data) });
        mine.push({ own: 1 });
        await heard.entry(0);
        await home.io.contexts.update(context.name, { n: 5 });
        await context.away.has({ n: 5, client: "ACME" });
        await guest.app.io.contexts.update(context.name, { n: 6 });
        await context.at.has({ n: 6, client: "ACME" });
      });
    }
  });
}
