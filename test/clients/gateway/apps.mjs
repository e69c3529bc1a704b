// The client libraries as they are published, and apps that use them.
import { createRequire } from "node:module";
import { within } from "../fabric.mjs";

const require = createRequire(import.meta.url);

/** A library is one npm package that connects apps to a gateway. */
class Library {
  constructor(name, global) {
    this.name = name;
    this.global = global; // what its browser bundle calls itself
    this.version = require(`${name}/package.json`).version;
    this.desktop = name.endsWith("/desktop"); // with channels, prefs, appManager, windows
    this.short = name.replace(/^@(\w+)\/(\w+)$/, "$1-$2");
  }

  toString() {
    return `${this.name} ${this.version}`;
  }

  /** connect starts the library with its own defaults and what config adds. */
  connect(gateway, application, config = {}) {
    return this.load()({ gateway: { ws: gateway.url }, auth: gateway.auth, application, ...config });
  }

  /** load gives each app a copy, as in a process of its own: the desktop ones keep who they are in variables of the module. */
  load() {
    delete require.cache[require.resolve(this.name)];
    const module = require(this.name);
    return module.default ?? module;
  }
}

export const libraries = [
  new Library("@interopio/core", "IOConnectCore"),
  new Library("@interopio/desktop", "IODesktop"),
  new Library("@glue42/core", "GlueCore"),
  new Library("@glue42/desktop", "Glue"),
];

export const library = (name) => libraries.find((l) => l.name === name);

// The libraries leave timers behind, of up to 90 s, for which a test process would wait at its end.
for (const name of ["setTimeout", "setInterval"]) {
  const start = globalThis[name];
  globalThis[name] = Object.assign((...args) => start(...args).unref(), start);
}

// @interopio/core 6.10 prints every error that a gateway answers, those that a check wants too.
const warn = console.warn;
console.warn = (...args) => (String(args[0]).startsWith("Gateway error - ") ? undefined : warn(...args));

let count = 0;

/** App is one connected client; io is what its library returned. */
export class App {
  static async join(library, gateway, { application = `${library.short}-${++count}`, ...config } = {}) {
    const all = { logger: "off", bus: true, ...(library.desktop && { channels: true }), ...config };
    const io = await within(10_000, `${application} to connect`, library.connect(gateway, application, all));
    return Object.assign(new App(), { io, library, gateway, application });
  }

  get identity() {
    return this.io.connection.resolvedIdentity;
  }

  get instance() {
    return this.identity.instance;
  }

  get peer() {
    return this.io.connection.peerId;
  }

  /** leave disconnects; an app that has left before is left alone. */
  leave() {
    this.left ??= this.io.done();
    return this.left;
  }
}

/** Log collects what callbacks say, and waits for it. */
export class Log {
  all = [];
  #waiting = new Set();

  /** add is a callback: what it is called with goes to the log. */
  add = (...args) => {
    this.all.push(args.length === 1 ? args[0] : args);
    for (const check of [...this.#waiting]) check();
  };

  get last() {
    return this.all.at(-1);
  }

  /** until waits for test to give something true of the log, and gives that. */
  until(what, test, ms = 5_000) {
    let check;
    const found = new Promise((resolve, reject) => {
      check = () => {
        try {
          const got = test(this.all);
          if (got) resolve(got);
        } catch (e) {
          reject(e);
        }
      };
      this.#waiting.add(check);
      check();
    });
    return within(ms, () => `${what}; the last of ${this.all.length} was ${JSON.stringify(this.all)?.slice(-1500)}`, found).finally(() => this.#waiting.delete(check));
  }

  /** next waits for one entry after the first n. */
  entry(n, what = `entry ${n}`) {
    return this.until(what, (all) => n < all.length && { value: all[n] }).then((e) => e.value);
  }
}
