// @interopio/fdc3, which npm cannot install: it depends on a package that is
// not published. Its bundle has all it needs, so it is fetched and unpacked
// into .cache, once, and only if it is the one that is known here.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const version = "2.5.1";
const integrity = "sha512-cz0j5BFCqEb7PDVAZ6aQWMtGf1JmF0EYRZciqqrR8h8OTtY4FksKt1i2wq2LXrpdup/P15MSPg4Mg7ze6cY+zQ==";
const cache = fileURLToPath(new URL("../.cache", import.meta.url));

/** fdc3 is the path of the library. */
export function fdc3() {
  const dir = join(cache, `fdc3-${version}`);
  if (!existsSync(dir)) fetch(dir);
  return join(dir, "dist", "fdc3.umd.js");
}

function fetch(dir) {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "fetch-"));
  try {
    const run = (command, ...args) => execFileSync(command, args, { cwd: work, stdio: ["ignore", "ignore", "pipe"], shell: process.platform === "win32" });
    run("npm", "pack", "--silent", `@interopio/fdc3@${version}`);
    const [tarball] = readdirSync(work);
    const got = `sha512-${createHash("sha512").update(readFileSync(join(work, tarball))).digest("base64")}`;
    if (got !== integrity) throw new Error(`its integrity is ${got}, not ${integrity}`);
    run("tar", "-xzf", tarball);
    renameSync(join(work, "package"), dir);
  } catch (e) {
    if (!existsSync(dir)) throw new Error(`cannot get @interopio/fdc3@${version} with npm pack: ${e.stderr?.toString().trim() || e.message}`);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
