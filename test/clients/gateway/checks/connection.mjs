// Connecting, and what apps learn of each other.
import assert from "node:assert/strict";
import { within } from "../../fabric.mjs";
import { App, Log } from "../apps.mjs";
import { between, desktop, meet } from "./suite.mjs";

/** joined connects with nothing but an address, a login and a name, within 3 s. */
async function joined({ after }, library, gateway, config) {
  const io = await within(3_000, `${library} to start`, library.connect(gateway, "default-app", { logger: "off", ...config }));
  const app = Object.assign(new App(), { io, library, gateway, application: "default-app" });
  after(() => app.leave());
  return app;
}

export const connection = {
  "connection: default configuration": async (x) => {
    const { a, b } = x;
    const app = await joined(x, a.library, a.gateway, {});
    await meet(b, [app]);
    const { application, user, instance, machine } = app.identity;
    assert.equal(application, "default-app");
    for (const value of [user, instance, machine]) assert.ok(typeof value === "string" && value.length > 0);
    await app.io.interop.register(x.fresh("First"), () => ({}));
    await app.io.contexts.set("first", { n: 1 });
    x.after(() => app.io.contexts.destroy("first"));
    if (a.library.desktop) {
      assert.deepEqual(app.io.windows.list(), []);
      assert.ok(Array.isArray(app.io.appManager.applications()));
    }
  },

  "connection: who is who": async ({ a, b }) => {
    for (const [app, other] of [[a, b], [b, a]]) {
      const { machine, node, osUser, user } = app.identity;
      assert.deepEqual([machine, node], [app.gateway.name, app.gateway.id]);
      assert.ok(osUser.length > 0 && user.length > 0);
      const seen = other.io.interop.servers().find((s) => s.instance === app.instance);
      assert.deepEqual([seen.machine, seen.application, seen.user, seen.isLocal], [machine, app.application, user, app.gateway === other.gateway]);
      const self = app.io.interop.servers().find((s) => s.instance === app.instance);
      assert.equal(self.isLocal, true);
      assert.equal(app.io.interop.instance.instance, app.instance);
    }
    assert.notEqual(a.instance, b.instance);
  },

  "connection: an identity of its own": async ({ a, b, join }) => {
    const identity = { windowId: "w-7", region: "EMEA", environment: "UAT", desk: { id: 3 } };
    const app = await join(a.gateway, a.library, { identity });
    for (const [key, value] of Object.entries(identity)) assert.deepEqual(app.identity[key], value, key);
    const seen = b.io.interop.servers().find((s) => s.instance === app.instance);
    assert.deepEqual([seen.windowId, seen.region, seen.environment, seen.pid], ["w-7", "EMEA", "UAT", process.pid]);
  },

  "connection: leaving": async ({ a, b, join }) => {
    const app = await join(a.gateway, a.library);
    const left = new Log();
    const stop = b.io.interop.serverRemoved((s, reason) => s.instance === app.instance && left.add({ reason }));
    await app.leave();
    await left.entry(0, "serverRemoved");
    stop();
    assert.ok(!b.io.interop.servers().some((s) => s.instance === app.instance));
  },
};

export const platform = {
  "desktop: everything on": between(desktop, desktop, async (x) => {
    const { a } = x;
    const app = await joined(x, a.library, a.gateway, { channels: true, appManager: "full", layouts: "full", windows: true, activities: true, displays: true, bus: true, metrics: true });
    assert.ok((await app.io.channels.all()).includes("Red"));
    assert.ok(Array.isArray(app.io.appManager.applications()) && Array.isArray(app.io.appManager.instances()));
    assert.deepEqual(app.io.windows.list(), []);
  }),

  "desktop: prefs": between(desktop, desktop, async (x) => {
    const { a } = x;
    const app = x.fresh("prefs");
    assert.deepEqual((await a.io.prefs.get(app)).data, {});
    await a.io.prefs.set({ theme: "dark", size: { w: 1 } }, { app });
    assert.deepEqual((await a.io.prefs.get(app)).data, { theme: "dark", size: { w: 1 } });
    await a.io.prefs.update({ size: { h: 2 }, list: [1] }, { app });
    assert.deepEqual((await a.io.prefs.get(app)).data, { theme: "dark", size: { h: 2 }, list: [1] });
    const own = await x.join(a.gateway, a.library, { application: app });
    assert.deepEqual((await own.io.prefs.get()).data, { theme: "dark", size: { h: 2 }, list: [1] }, "of the app with that name");
    const told = new Log();
    x.after(own.io.prefs.subscribe((prefs) => told.add(prefs.data)));
    await a.io.prefs.set({ theme: "light" }, { app });
    await told.until("the change", (all) => all.at(-1)?.theme === "light");
    await own.io.prefs.clear();
    await told.until("the end", (all) => Object.keys(all.at(-1)).length === 0); // or it leaves before its library has said that it knows
    assert.deepEqual((await a.io.prefs.get(app)).data, {});
  }),

  "desktop: running apps": between(desktop, desktop, async (x) => {
    const { a, b } = x;
    const app = await x.join(a.gateway, a.library, { appManager: "full" });
    const { appManager } = app.io;
    const of = (instances) => instances.map((i) => i.agm.instance);
    for (const other of [a, b, app]) {
      assert.ok(appManager.applications().some((one) => one.name === other.application), `${other.application} is no application`);
      assert.ok(of(appManager.instances()).includes(other.instance), `${other.application} has no instance`);
    }
    assert.equal(appManager.myInstance.agm.instance, app.instance);
    const [started, stopped] = [new Log(), new Log()];
    appManager.onInstanceStarted((i) => started.add(i.agm.instance));
    appManager.onInstanceStopped((i) => stopped.add(i.agm.instance));
    const guest = await x.join(b.gateway);
    await started.until("its start", (all) => all.includes(guest.instance));
    await guest.leave();
    await stopped.until("its end", (all) => all.includes(guest.instance));
    assert.ok(!of(appManager.instances()).includes(guest.instance));
  }),
};
