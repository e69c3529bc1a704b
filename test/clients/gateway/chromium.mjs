// A Chromium for tests: the one that is installed, or else Debian's, which root
// can install. Run by itself it prints where that is.
import { execFileSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** chromium is the path of the program; CHROMIUM names another. */
export function chromium() {
  const found = process.env.CHROMIUM || find();
  if (found) return found;
  try {
    for (const args of [["update", "-q"], ["install", "-qy", "--no-install-recommends", "chromium"]]) {
      execFileSync("apt-get", args, { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } });
    }
  } catch (e) {
    const why = e.stderr?.toString().trim().split("\n").at(-1) || e.message;
    throw new Error(`the browser tests need Chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM; apt-get said: ${why}`);
  }
  return find() ?? "chromium";
}

function find() {
  for (const dir of process.env.PATH.split(delimiter)) {
    for (const name of names) {
      try {
        accessSync(join(dir, name), constants.X_OK);
        return join(dir, name);
      } catch {
        // not here
      }
    }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) console.log(chromium());
