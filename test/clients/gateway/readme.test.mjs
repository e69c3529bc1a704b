// The example in README.md, run as it is: the client library finds the gateway
// by the environment variable with which its own platform starts apps.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { Desk } from "./desk.mjs";

const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8");
const clients = fileURLToPath(new URL("..", import.meta.url));

let desk;
before(async () => {
  desk = await Desk.start({ machines: 1 });
});
after(() => desk?.stop());

test("the example of README.md runs and prints what its comments say", { timeout: 30_000 }, async () => {
  const [, section] = readme.split(/^## Run your existing app against it$/m);
  assert.ok(section, 'README.md has no section "Run your existing app against it"');
  const [, code] = section.split(/^## /m)[0].match(/^```js\n([^]*?)^```$/m) ?? [];
  assert.ok(code, 'the section "Run your existing app against it" of README.md has no ```js block');
  const expected = [...code.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map(([, comment]) => comment.trim());
  assert.ok(expected.length > 0, "no console.log of the example says in a comment what it prints");
  const started = { gwURL: desk.machines[0].url, applicationConfig: { name: "readme" } };
  const { error, stdout, stderr } = await new Promise((resolve) => {
    const env = { ...process.env, _GD_STARTING_CONTEXT_: JSON.stringify(started) };
    execFile(process.execPath, ["--input-type=module", "--eval", code], { cwd: clients, env, timeout: 20_000 }, (error, stdout, stderr) => resolve({ error, stdout, stderr }));
  });
  assert.equal(error, null, `${error?.message}\n${stdout}\n${stderr}`);
  assert.deepEqual(stdout.trim().split("\n"), expected);
});
