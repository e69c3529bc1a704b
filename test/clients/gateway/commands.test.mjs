// Apps of the client libraries and programs of Weft's command line, which are
// Go apps on nodes of their own, use each other's services.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { add, eventually } from "../fabric.mjs";
import { App, Log, libraries } from "./apps.mjs";
import { defaults } from "./checks/channels.mjs";
import { follow, reads } from "./checks/contexts.mjs";
import { title } from "./compatibility.mjs";
import { Desk } from "./desk.mjs";

describe("the command line", () => {
  let desk;
  before(async () => {
    desk = await Desk.start({ machines: 1 });
    const servers = [desk.fabric.spawn("serve", "Go.Add", "--exec", add, "--accepts", "int a, int b", "--description", "adds"),
      desk.fabric.spawn("serve", "Go.Echo", "--echo"), desk.fabric.spawn("serve", "Go.Fail", "--exec", "echo out of paper >&2; exit 3")];
    await Promise.all(servers.map((s) => s.line(/^Serving /)));
  });
  after(() => desk?.stop());

  libraries.forEach((l, i) => {
    let app;
    const test = (feature, f) => it(title({ feature: `command line: ${feature}`, clients: [l], nodes: 2, fabric: "embedded" }), { timeout: 20_000 }, f);
    const lines = async (...args) => (await desk.weft(...args, "--json")).split("\n").map((line) => JSON.parse(line));

    describe(`${l}`, () => {
      before(async () => {
        app = await App.join(l, desk.machines[0]);
      });
      after(() => app?.leave());

      test("calls weft serve", async () => {
        await Promise.all(["Go.Add", "Go.Echo", "Go.Fail"].map((name) => app.io.interop.waitForMethod(name)));
        const r = await app.io.interop.invoke("Go.Add", { a: 1, b: 2 });
        assert.deepEqual([r.returned, r.executed_by.application], [{ sum: 3 }, "weft-serve"]);
        const [method] = app.io.interop.methods({ name: "Go.Add" });
        assert.deepEqual([method.accepts, method.description], ["int a, int b", "adds"]);
        const value = { text: "Zürich 𝄞", half: 0.5, big: 2 ** 53, none: null, deep: { list: [1, [], { x: true }] } };
        assert.deepEqual((await app.io.interop.invoke("Go.Echo", value)).returned, value);
        await assert.rejects(app.io.interop.invoke("Go.Fail"), (e) => /out of paper/.test(e.message));
      });

      test("answers weft call", async () => {
        const name = `App.Price.${i}`;
        await app.io.interop.register({ name, accepts: "string isin" }, ({ isin, bad }, caller) => {
          if (bad) throw new Error("no such bond");
          return { isin, price: 99.5, for: caller.application };
        });
        assert.deepEqual(JSON.parse(await desk.weft("call", name, '{"isin":"DE1"}', "--wait", "5s")), { isin: "DE1", price: 99.5, for: "weft-cli" });
        const [at] = await lines("call", name, '{"isin":"DE2"}', "--target", `application=${app.application}`);
        assert.deepEqual([at.value.isin, at.server.application, at.server.node], ["DE2", app.application, desk.machines[0].id]);
        const failed = await desk.fabric.run("call", name, '{"bad":true}');
        assert.deepEqual([failed.code, failed.stderr], [1, "app-error: no such bond\n"]);
        const [listed] = (await lines("methods")).filter((m) => m.name === name);
        assert.deepEqual([listed.accepts, listed.servers[0].application, listed.servers[0].node], ["string isin", app.application, desk.machines[0].id]);
      });

      test("shares contexts", async () => {
        const name = `Go.Context.${i}`;
        const { has, log } = await follow(app, name);
        await desk.weft("context", "set", name, '{"client":"ACME","limits":{"BMW":[5,6]}}');
        await has({ client: "ACME", limits: { BMW: [5, 6] } });
        await desk.weft("context", "update", name, '{"client":null,"n":1}');
        await has({ limits: { BMW: [5, 6] }, n: 1 });
        await desk.weft("context", "path", name, "limits.BMW.1", "7");
        await has({ limits: { BMW: [5, 7] }, n: 1 });
        const watch = desk.fabric.spawn("context", "watch", name, "--json");
        await watch.line(/"event":"snapshot"/);
        await app.io.contexts.update(name, { n: 2, from: l.name });
        const event = JSON.parse(await watch.line(/"event":"changed"/));
        assert.deepEqual(event.changes.map((c) => [c.path, c.value]).sort(), [[["from"], l.name], [["n"], 2]]);
        assert.equal(event.by.node, desk.machines[0].id);
        assert.deepEqual(JSON.parse(await desk.weft("context", "get", name)), { limits: { BMW: [5, 7] }, n: 2, from: l.name });
        await app.io.contexts.destroy(name);
        await watch.line(/"event":"destroyed"/);
        watch.kill();
        assert.equal(log.last.data.n, 2);
        await app.io.contexts.set(name, { again: true });
        assert.deepEqual(JSON.parse(await desk.weft("context", "get", name)), { again: true });
        assert.deepEqual(await reads(app, name), { again: true });
      });

      test("publishes and hears topics", async () => {
        const topic = `go.fills.${i}`;
        const heard = new Log();
        await app.io.bus.subscribe(topic, (data, at, source) => heard.add({ data, at, application: source.application }));
        await desk.weft("pub", topic, '{"qty":400}');
        const { application, ...message } = await heard.entry(0);
        assert.deepEqual(message, { data: { qty: 400 }, at: topic });
        assert.match(application, /^weft-cli$|^cli-/); // the node's id if the message is faster than news of its app
        const sub = desk.fabric.spawn("sub", "go.fills.*", "--json");
        const line = sub.line(/"own":/);
        let heardBack = false;
        line.then(() => (heardBack = true), () => (heardBack = true));
        await eventually("weft sub to hear", () => {
          app.io.bus.publish(topic, { own: i });
          return heardBack;
        });
        const printed = JSON.parse(await line);
        assert.deepEqual([printed.topic, printed.value ?? printed.data], [topic, { own: i }]);
        sub.kill();
      });

      test("subscribes to weft stream publish", async () => {
        const name = `Go.Quotes.${i}`;
        const publisher = desk.fabric.spawn("stream", "publish", name, "--keep", "--branch", "VOD,BMW");
        await publisher.line(/^Publishing /);
        await app.io.interop.waitForMethod(name);
        const [data, closed] = [new Log(), new Log()];
        await app.io.interop.subscribe(name, { arguments: { branch: "VOD" }, onData: (d) => data.add({ data: d.data, by: d.server.application }), onClosed: closed.add });
        publisher.write('{"bid":1}\n{"bid":2.5}\n');
        await data.entry(1);
        assert.deepEqual(data.all, [{ data: { bid: 1 }, by: "weft-publish" }, { data: { bid: 2.5 }, by: "weft-publish" }]);
        publisher.kill();
        assert.equal((await closed.entry(0)).message, "ServerInitiated");
      });

      test("feeds weft stream watch", async () => {
        const name = `App.Feed.${i}`;
        const [added, removed] = [new Log(), new Log()];
        const stream = await app.io.interop.createStream(name, {
          subscriptionRequestHandler: (r) => (r.arguments.no ? r.reject("members only") : r.accept()),
          subscriptionAddedHandler: added.add,
          subscriptionRemovedHandler: removed.add,
        });
        const watch = desk.fabric.spawn("stream", "watch", name, '{"what":"all"}', "--wait", "5s", "--json");
        const subscription = await added.entry(0, "weft stream watch");
        assert.deepEqual(subscription.arguments, { what: "all" });
        stream.push({ n: 1 });
        await watch.line(/"n":1/);
        subscription.push({ only: "you" });
        await watch.line(/"only":"you"/);
        watch.kill();
        await removed.entry(0, "its end");
        const refused = await desk.fabric.run("stream", "watch", name, '{"no":1}');
        assert.equal(refused.code, 1);
        assert.match(refused.stderr, /members only/);
        stream.close();
      });

      test("weft apps lists it", async () => {
        const mine = (await lines("apps")).find((a) => a.identity.application === app.application);
        assert.ok(mine, "it is not there");
        const { machine, node, user, osUser, pid, api } = { ...mine.identity };
        assert.deepEqual([machine, node, pid], [desk.machines[0].name, desk.machines[0].id, process.pid]);
        assert.deepEqual([user, osUser, api], [app.identity.user, app.identity.osUser, l.version]);
        const nodes = await lines("nodes");
        assert.ok(nodes.find((n) => n.id === desk.machines[0].id).apps.includes(app.application));
      });

      if (!l.desktop) return;
      test("is on channels", async () => {
        const heard = new Log();
        app.io.channels.subscribe((data) => heard.add(data));
        await app.io.channels.join("Green");
        await desk.weft("channel", "publish", "Green", `{"client":{"id":"go-${i}"}}`);
        await heard.until("what weft publishes", (all) => all.at(-1)?.client?.id === `go-${i}`);
        await app.io.channels.publish({ client: { id: `app-${i}` } });
        await eventually("weft to read it", async () => JSON.parse(await desk.weft("channel", "get", "Green")).client?.id === `app-${i}`);
        await eventually("it to be a member", async () => (await desk.fabric.run("channel", "members", "Green", "--json")).stdout.includes(app.application));
        await app.io.channels.leave();
        await eventually("it not to be a member", async () => !(await desk.fabric.run("channel", "members", "Green", "--json")).stdout.includes(app.application));
        assert.deepEqual((await lines("channel", "ls")).map((c) => c.name).sort(), defaults);
      });
    });
  });
});
