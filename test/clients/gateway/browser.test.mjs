// The client libraries' browser bundles in pages of a real Chromium, from an
// origin that the gateway allows and from one that it does not.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { chromium } from "playwright-core";
import { within } from "../fabric.mjs";
import { App, libraries, library } from "./apps.mjs";
import { follow } from "./checks/contexts.mjs";
import { chromium as program } from "./chromium.mjs";
import { title } from "./compatibility.mjs";
import { Desk } from "./desk.mjs";
import { fdc3, version } from "./fdc3.mjs";
import { Line } from "./line.mjs";

const require = createRequire(import.meta.url);
const bundle = (l) => join(dirname(require.resolve(`${l.name}/package.json`)), "dist", l.desktop ? "desktop.browser.js" : "core.umd.js");
const files = { ...Object.fromEntries(libraries.map((l) => [`/${l.short}.js`, bundle(l)])), "/fdc3.js": fdc3() };

let names = 0;

/** see runs in a page: it waits until a context has n. */
const see = ([name, n]) => new Promise((resolve) => window.io.contexts.subscribe(name, (data) => data.n === n && resolve()));

/** site serves a page that loads the scripts which its query names. */
async function site() {
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://site");
    const file = files[pathname];
    response.setHeader("Content-Type", file ? "text/javascript; charset=utf-8" : "text/html; charset=utf-8");
    response.end(file ? readFileSync(file) : `<!doctype html><title>app</title><script>window.ready = new Promise((f) => addEventListener("fdc3Ready", f))</script>${searchParams.getAll("js").map((s) => `<script src="/${s}.js"></script>`).join("")}`);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, origin: `http://127.0.0.1:${server.address().port}`, close: () => server.closeAllConnections() ?? server.close() };
}

describe("browsers", () => {
  let browser, allowed, other, desk;
  before(async () => {
    [allowed, other, browser] = await Promise.all([site(), site(), chromium.launch({ executablePath: program(), args: ["--no-sandbox"] })]);
    desk = await Desk.start({ machines: 2, args: ["--gateway-allowed-origins", allowed.origin] });
  });
  after(async () => {
    await browser?.close();
    allowed?.close();
    other?.close();
    await desk?.stop();
  });

  /** open is a page with scripts, in a browser context of its own. */
  async function open(t, { origin }, ...scripts) {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(`${origin}/?${scripts.map((s) => `js=${s}`).join("&")}`);
    return page;
  }

  /** connect starts the library in a page as window.io, and gives its identity. */
  const connect = (page, l, machine, config = {}) => within(5_000, `${l} in a page`, page.evaluate(async ([name, options]) => {
    const started = performance.now();
    window.io = await window[name](options);
    return { ...window.io.connection.resolvedIdentity, took: performance.now() - started };
  }, [l.global, { gateway: { ws: machine.url }, auth: machine.auth, application: "page", bus: true, logger: "off", ...config }]));

  for (const l of libraries) {
    const test = (feature, f) => it(title({ feature: `browser: ${feature}`, clients: [l], nodes: 2, fabric: "embedded" }), { timeout: 30_000 }, f);

    test("works from an allowed origin", async (t) => {
      const [here, there] = [desk.machines[0], desk.machines.at(-1)];
      const app = await App.join(library("@glue42/core"), there);
      t.after(() => app.leave());
      const page = await open(t, allowed, l.short);
      const { took, instance, user } = await connect(page, l, here, l.desktop ? { channels: true } : {});
      assert.ok(took < 3_000, `${took} ms to start`);
      assert.ok(user.length > 0);

      await page.evaluate(() => window.io.interop.register("Page.Title", ({ n }, caller) => ({ n: n + 1, title: document.title, for: caller.application })));
      await within(5_000, "the page's method", app.io.interop.waitForMethod("Page.Title"));
      const r = await app.io.interop.invoke("Page.Title", { n: 1 });
      assert.deepEqual([r.returned, r.executed_by.instance], [{ n: 2, title: "app", for: app.application }, instance]);

      await app.io.interop.register("Node.Add", ({ a, b }) => ({ sum: a + b }));
      assert.deepEqual(await page.evaluate(async () => (await window.io.interop.invoke("Node.Add", { a: 1, b: 2 })).returned), { sum: 3 });

      const stream = await app.io.interop.createStream("Node.Feed");
      await page.evaluate(async () => {
        await window.io.interop.waitForMethod("Node.Feed");
        window.heard = [];
        await window.io.interop.subscribe("Node.Feed", { onData: (d) => window.heard.push(d.data.n) });
      });
      for (let n = 0; n < 50; n++) stream.push({ n });
      await page.waitForFunction(() => window.heard.length === 50);
      assert.deepEqual(await page.evaluate(() => window.heard), Array.from({ length: 50 }, (_, n) => n));

      const name = `Page.${l.short}`;
      const live = await follow(app, name);
      await page.evaluate((n) => window.io.contexts.set(n, { from: "page", list: [1] }), name);
      await live.has({ from: "page", list: [1] });
      await app.io.contexts.update(name, { from: "node" });
      await page.evaluate((n) => new Promise((resolve) => window.io.contexts.subscribe(n, (data) => data.from === "node" && resolve())), name);
      await app.io.contexts.destroy(name);
      for (const name of ["Node.Add", "Node.Feed"]) await app.io.interop.unregister(name).catch(() => {});
      await page.evaluate(() => window.io.done());
    });

    test("is refused from another origin", async (t) => {
      const [machine] = desk.machines;
      const page = await open(t, other, l.short);
      const closed = await within(5_000, "the socket", page.evaluate((url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve("it opened");
        socket.onclose = (e) => resolve(e.code);
      }), machine.url));
      assert.equal(closed, 1006);
      await assert.rejects(connect(page, l, machine, { gateway: { ws: machine.url, reconnectInterval: 50, reconnectAttempts: 2 } }));
    });

    test("needs the token", async (t) => {
      const page = await open(t, allowed, l.short);
      for (const auth of [{ token: "guess" }, { username: "ann", password: "any" }]) {
        await assert.rejects(connect(page, l, { ...desk.machines[0], auth }));
      }
      await connect(page, l, desk.machines[0]);
    });

    test("comes back after its gateway restarted", async (t) => {
      const machine = desk.machines.at(-1);
      const page = await open(t, allowed, l.short);
      await connect(page, l, machine, { gateway: { ws: machine.url, reconnectInterval: 100, reconnectAttempts: 1000 } });
      await page.evaluate(async () => {
        await window.io.interop.register("Page.Again", () => ({ ok: true }));
        window.lost = new Promise((resolve) => window.io.connection.disconnected(resolve));
        window.back = new Promise((resolve) => window.io.connection.onLibReAnnounced(({ name }) => name === "interop" && resolve()));
      });
      await machine.kill();
      await page.evaluate(() => window.lost);
      await machine.start();
      await within(15_000, "the page to be back", page.evaluate(() => window.back));
      const app = await App.join(library("@interopio/core"), desk.machines[0]);
      t.after(() => app.leave());
      await within(5_000, "its method", app.io.interop.waitForMethod("Page.Again"));
      assert.deepEqual((await app.io.interop.invoke("Page.Again")).returned, { ok: true });
    });
  }

  for (const l of libraries) {
    const test = (feature, f) => it(title({ feature: `browser: ${feature}`, clients: [l], nodes: 2, fabric: "embedded" }), { timeout: 30_000 }, async (t) => {
      const home = await App.join(library("@interopio/core"), desk.machines[0]);
      t.after(() => home.leave());
      const line = await Line.to(desk.machines.at(-1));
      t.after(() => line.close());
      const page = await open(t, allowed, l.short);
      await connect(page, l, line, { gateway: { ws: line.url, reconnectInterval: 100, reconnectAttempts: 1000 } });
      const name = `Held.${++names}`;
      await home.io.contexts.set(name, { n: 1, client: "ACME" });
      const at = await follow(home, name);
      await page.evaluate(see, [name, 1]);
      await f({ home, line, page, name, at });
    });

    test("does not undo what others wrote when it comes back", async ({ home, line, page, name, at }) => {
      await page.evaluate(() => {
        window.lost = new Promise((resolve) => window.io.connection.disconnected(resolve));
        window.back = new Promise((resolve) => window.io.connection.onLibReAnnounced((lib) => lib.name === "contexts" && resolve()));
      });
      line.cut();
      await page.evaluate(() => window.lost);
      await home.io.contexts.update(name, { n: 2 });
      line.mend();
      await within(15_000, "the page to be back", page.evaluate(() => window.back));
      await page.evaluate((n) => window.io.contexts.update(n, { end: true }), name);
      await at.has({ n: 2, client: "ACME", end: true });
      await page.evaluate(see, [name, 2]);
    });

    test("means what it says after a reload", async ({ home, line, page, name, at }) => {
      await page.reload();
      await home.io.contexts.update(name, { n: 2 });
      await connect(page, l, line);
      await page.evaluate(see, [name, 2]);
      await page.evaluate((n) => window.io.contexts.update(n, { n: 1 }), name);
      await at.has({ n: 1, client: "ACME" });
    });
  }

  it(title({ feature: "browser: FDC3", clients: [`@interopio/fdc3 ${version}`], nodes: 2, fabric: "embedded" }), { timeout: 30_000 }, async (t) => {
    const io = library("@interopio/desktop");
    const pages = [];
    for (const machine of [desk.machines[0], desk.machines.at(-1)]) {
      const page = await open(t, allowed, io.short, "fdc3");
      await connect(page, io, machine, { channels: true, application: `page-${machine.id}` });
      await within(5_000, "window.fdc3", page.evaluate(() => window.ready.then(() => undefined)));
      await page.evaluate(async () => window.fdc3.joinUserChannel((await window.fdc3.getUserChannels())[0].id));
      pages.push(page);
    }
    await pages[1].evaluate(() => {
      window.heard = new Promise((resolve) => window.fdc3.addContextListener("fdc3.instrument", resolve));
    });
    await pages[0].evaluate(() => window.fdc3.broadcast({ type: "fdc3.instrument", id: { ticker: "VOD" } }));
    assert.deepEqual(await within(5_000, "the broadcast", pages[1].evaluate(() => window.heard)), { type: "fdc3.instrument", id: { ticker: "VOD" } });
  });
});
