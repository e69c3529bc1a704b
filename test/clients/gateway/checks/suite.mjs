// Runs checks with pairs of apps. A check gets two connected apps, a and b (of
// two libraries, on two machines if there are two), a third, c, of b's library
// and machine, and what it needs to leave nothing behind.
import { after, before, describe, it } from "node:test";
import { within } from "../../fabric.mjs";
import { App, libraries } from "../apps.mjs";
import { title } from "../compatibility.mjs";

let names = 0;

export const desktop = (l) => l.desktop;
export const any = () => true;

/** between limits a check to pairs with such libraries at its ends. */
export function between(a, b, check) {
  return Object.assign((x) => check(x), { ends: [a, b] });
}

/** suite runs checks with each library as a, and as b the first that fits from so many further on. */
export function suite(checks, { further, nodes, fabric, desk }) {
  const fits = (l, check, end) => (check.ends?.[end] ?? any)(l);
  libraries.forEach((a, i) => {
    const rotated = libraries.map((_, n) => libraries[(i + further + n) % libraries.length]);
    const mine = Object.entries(checks).filter(([, check]) => fits(a, check, 0));
    for (const b of rotated) {
      const these = mine.filter(([, check]) => rotated.find((l) => fits(l, check, 1)) === b);
      if (these.length > 0) pair(these, { a, b, nodes, fabric, desk });
    }
  });
}

function pair(checks, { a, b, nodes, fabric, desk }) {
  describe(`${a} and ${b}, ${nodes} nodes, ${fabric}`, () => {
    const apps = {};
    before(async () => {
      const [first, last] = [desk().machines[0], desk().machines.at(-1)];
      const joined = await Promise.all([App.join(a, first), App.join(b, last), App.join(b, last)]);
      [apps.a, apps.b, apps.c] = joined;
      await Promise.all(joined.map((app) => meet(app, joined)));
    });
    after(() => Promise.all(Object.values(apps).map((app) => app.leave())));
    for (const [feature, check] of checks) {
      it(title({ feature, clients: [...new Set([a, b])], nodes, fabric }), { timeout: 20_000 }, () => run(check, apps));
    }
  });
}

/** meet waits until app knows others. */
export function meet(app, others) {
  const missing = new Set(others.filter((o) => o !== app).map((o) => o.instance));
  return within(5_000, () => `${app.application} to see ${[...missing]}`, new Promise((resolve) => {
    const stop = app.io.interop.serverAdded((s) => {
      missing.delete(s.instance);
      if (missing.size > 0) return;
      resolve();
      setImmediate(() => stop());
    });
    if (missing.size === 0) resolve();
  }));
}

async function run(check, apps) {
  const cleanups = [];
  const x = {
    ...apps,
    after: (f) => cleanups.push(f),
    fresh: (name) => `${name}.${process.pid}.${++names}`,
    sees: (app, name) => within(5_000, `${app.application} to see ${name}`, app.io.interop.waitForMethod(name)),
    async offer(app, definition, handler) {
      const name = definition.name ?? definition;
      await app.io.interop.register(definition, handler);
      x.after(() => app.left || app.io.interop.unregister(name));
      const server = (other) => other.io.interop.servers({ name }).some((s) => s.instance === app.instance);
      await Promise.all([x.a, x.b, x.c].map((other) => server(other) || offered(other, app, name)));
    },
    async join(gateway, library = x.b.library, config = {}, known = true) {
      const app = await App.join(library, gateway, config);
      x.after(() => app.leave());
      if (known) await Promise.all([x.a, x.b, x.c].map((other) => meet(other, [other, app])));
      return app;
    },
  };
  try {
    await check(x);
  } finally {
    for (const f of cleanups.reverse()) await f();
  }
}

/** offered waits until an app knows that server offers a method. */
function offered(app, server, name) {
  return within(5_000, `${app.application} to see ${name} of ${server.application}`, new Promise((resolve) => {
    const stop = app.io.interop.serverMethodAdded(({ server: s, method }) => {
      if (s.instance !== server.instance || method.name !== name) return;
      resolve();
      setImmediate(() => stop());
    });
  }));
}
