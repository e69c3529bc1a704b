// The compatibility table, made of test results: a reporter for node --test that
// compares docs/compatibility.md with the run, or writes it (WEFT_WRITE_DOCS=1).
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const page = new URL("../../../docs/compatibility.md", import.meta.url);
const counts = ["one node", "two nodes"];

/** title is the name of a test that is in the table. */
export function title({ feature, clients, nodes, fabric }) {
  return [feature, clients.join(" with "), counts[nodes - 1], fabric].join(" | ");
}

/** parse is what title was made of, or nothing. */
function parse(name) {
  const [feature, clients, nodes, fabric] = name.split(" | ");
  if (fabric === undefined) return;
  const [section, ...rest] = feature.split(": ");
  return { section, feature: rest.join(": "), clients: clients.split(" with "), nodes: counts.indexOf(nodes) };
}

export default async function* reporter(events) {
  const table = new Table();
  for await (const { type, data } of events) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    const test = data.details?.type !== "suite" && parse(data.name);
    if (test) table.add(test, type === "test:pass" && data.skip === undefined && data.todo === undefined);
  }
  yield compare(table.text());
}

/** compare writes the page, or says how it differs and fails the run. */
function compare(text) {
  if (process.env.WEFT_WRITE_DOCS === "1") {
    mkdirSync(new URL(".", page), { recursive: true });
    writeFileSync(page, text);
    return "docs/compatibility.md is written\n";
  }
  if (text === read()) return "docs/compatibility.md is what this run found\n";
  process.exitCode = 1;
  return `docs/compatibility.md is not what this run found: ${difference(read(), text)}\nIf this run is right: WEFT_WRITE_DOCS=1 npm test\n`;
}

function read() {
  try {
    return readFileSync(page, "utf8");
  } catch {
    return "";
  }
}

/** difference is the first line that differs. */
function difference(before, now) {
  const [old, lines] = [before.split("\n"), now.split("\n")];
  const i = lines.findIndex((line, n) => line !== old[n]);
  return i < 0 ? `it has ${old.length} lines, not ${lines.length}` : `line ${i + 1} is\n  ${old[i] ?? ""}\nnot\n  ${lines[i]}`;
}

class Table {
  #sections = new Map(); // by section: by feature: by client: [one node, two nodes], each true, false or undefined

  add({ section, feature, clients, nodes }, passed) {
    const features = entry(this.#sections, section, () => new Map());
    const cells = entry(features, feature, () => new Map());
    for (const client of clients) {
      const cell = entry(cells, client, () => []);
      cell[nodes] = cell[nodes] !== false && passed;
    }
  }

  text() {
    const parts = [head];
    for (const section of ordered(this.#sections.keys(), sections)) parts.push(this.#section(section, this.#sections.get(section)));
    return `${parts.join("\n\n")}\n`;
  }

  #section(name, features) {
    const cells = [...features.values()].flatMap((clients) => [...clients.values()]);
    const nodes = [0, 1].filter((n) => cells.some((cell) => cell[n] !== undefined));
    const clients = [...new Set([...features.values()].flatMap((c) => [...c.keys()]))].sort((a, b) => order(a) - order(b) || a.localeCompare(b));
    const say = (passed) => (passed === undefined ? "–" : passed ? "yes" : "NO");
    const cell = (results) => (results ? nodes.map((n) => say(results[n])).join(" / ") : "–");
    const rows = [...features].sort(([a], [b]) => a.localeCompare(b)).map(([feature, of]) => [feature, ...clients.map((c) => cell(of.get(c)))]);
    const header = [nodes.map((n) => counts[n]).join(" / "), ...clients];
    const lines = [header, header.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);
    return `## ${name[0].toUpperCase()}${name.slice(1)}\n\n${lines.join("\n")}`;
  }
}

const sections = ["connection", "methods", "streams", "contexts", "returning", "bus", "channels", "desktop", "FDC3", "browser", "command line", "realms"];

const head = `# Compatibility

Apps written for Glue42 and io.Connect join Weft unmodified. This page is written by the tests in test/clients/gateway, which run the libraries below
as npm has them, against real nodes: each client with itself and with the others, on one node and on two, with the embedded NATS server and with a
cluster of three. A test run that finds something else than this page says fails.

yes: it works, NO: it does not, –: the client has no such calls, or it is no case for it.`;

const order = (client) => (/fdc3/.test(client) ? 2 : /^@interopio/.test(client) ? 0 : 1);

/** ordered has the known keys first. */
function ordered(keys, known) {
  const at = (k) => (known.includes(k) ? known.indexOf(k) : known.length);
  return [...keys].sort((a, b) => at(a) - at(b) || a.localeCompare(b));
}

function entry(map, key, make) {
  if (!map.has(key)) map.set(key, make());
  return map.get(key);
}
