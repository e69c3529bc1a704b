// Two realms on one fabric: apps of one see nothing of the other.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { App, Log, libraries } from "./apps.mjs";
import { follow, reads } from "./checks/contexts.mjs";
import { meet } from "./checks/suite.mjs";
import { title } from "./compatibility.mjs";
import { Desk } from "./desk.mjs";

for (const fabric of ["embedded", "cluster"]) {
  describe(fabric, () => {
    let desk, apps;
    before(async () => {
      desk = await Desk.start({ machines: 2, cluster: fabric === "cluster", realms: ["desk", "other"] });
      await desk.add("n3", { realm: "other" });
    });
    after(() => desk?.stop());

    libraries.forEach((l, i) => {
      const next = libraries[(i + 1) % libraries.length];
      const test = (feature, f) => it(title({ feature: `realms: ${feature}`, clients: [l, next], nodes: 2, fabric }), { timeout: 20_000 }, f);

      describe(`${l}`, () => {
        before(async () => {
          const [here, near, foreign] = desk.machines;
          apps = await Promise.all([App.join(l, here), App.join(next, near), App.join(next, foreign), App.join(l, foreign)]);
          await Promise.all([meet(apps[0], [apps[1]]), meet(apps[1], [apps[0]]), meet(apps[2], [apps[3]])]);
        });
        after(() => Promise.all(apps.map((app) => app.leave())));

        test("apps and methods", async () => {
          const [a, b, foreign] = apps;
          const name = `Secret.${i}`;
          await a.io.interop.register(name, () => ({ from: "desk" }));
          await b.io.interop.waitForMethod(name);
          assert.deepEqual(foreign.io.interop.methods({ name }), []);
          assert.deepEqual(foreign.io.interop.servers().filter((s) => [a.instance, b.instance].includes(s.instance)), []);
          assert.deepEqual(a.io.interop.servers().filter((s) => [foreign.instance, apps[3].instance].includes(s.instance)), []);
          await assert.rejects(foreign.io.interop.invoke(name, {}, "best", { waitTimeoutMs: 0 }), { message: /^Can not find a method/ });
          await apps[3].io.interop.register(name, () => ({ from: "other" }));
          await foreign.io.interop.waitForMethod(name);
          assert.deepEqual((await foreign.io.interop.invoke(name)).returned, { from: "other" });
          assert.deepEqual((await b.io.interop.invoke(name, {}, "all")).all_return_values.map((v) => v.returned), [{ from: "desk" }]);
        });

        test("contexts", async () => {
          const [a, b, foreign] = apps;
          const [name, only] = [`Private.${i}`, `Only.${i}`];
          const watched = await follow(foreign, only);
          await a.io.contexts.set(only, { from: "desk" });
          await a.io.contexts.set(name, { from: "desk" });
          assert.deepEqual(await reads(b, name), { from: "desk" });
          assert.deepEqual(await reads(b, only), { from: "desk" });
          await foreign.io.contexts.set(name, { from: "other" });
          assert.deepEqual(await reads(apps[3], name), { from: "other" });
          await a.io.contexts.update(name, { more: 1 });
          await foreign.io.contexts.update(name, { less: 1 });
          assert.deepEqual([await a.io.contexts.get(name), await foreign.io.contexts.get(name)], [{ from: "desk", more: 1 }, { from: "other", less: 1 }]);
          assert.deepEqual([foreign.io.contexts.all().includes(only), watched.log.all], [false, []]);
        });

        test("topics", async () => {
          const [a, b, foreign] = apps;
          const topic = `realm${i}`;
          const [here, there] = [new Log(), new Log()];
          for (const [app, log] of [[b, here], [foreign, there]]) await app.io.bus.subscribe(topic, (data) => log.add(data));
          const both = setInterval(() => {
            a.io.bus.publish(topic, { from: "desk" });
            apps[3].io.bus.publish(topic, { from: "other" });
          }, 10);
          await Promise.all([here.entry(5), there.entry(5)]).finally(() => clearInterval(both));
          assert.deepEqual([...new Set(here.all.map((m) => m.from))], ["desk"]);
          assert.deepEqual([...new Set(there.all.map((m) => m.from))], ["other"]);
        });

        test("channels", async () => {
          const red = "___channel___Red";
          const [a, b, foreign] = apps;
          const live = await follow(foreign, red);
          const value = { of: `desk ${i}` };
          await a.io.contexts.setPath(red, "data.mine", value);
          const near = await follow(b, red);
          await near.log.until("the data", (all) => all.at(-1)?.data.data.mine?.of === value.of);
          await apps[3].io.contexts.setPath(red, "data.theirs", value);
          await live.log.until("the other's data", (all) => all.at(-1)?.data.data.theirs?.of === value.of);
          assert.equal(live.log.last.data.data.mine, undefined);
        });
      });
    });
  });
}
