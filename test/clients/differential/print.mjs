// Transcripts and differences as text.
import { plain } from "./compare.mjs";
import { canonical } from "./holding.mjs";

/** printed is what was sent and what came, with - before what only the reference sent and + before what only Weft sent. */
export function printed(scenario, { reference, weft }) {
  const lines = [`== ${scenario.name}: ${scenario.about}`];
  const length = Math.max(reference.steps.length, weft.steps.length);
  for (let i = 0; i < length; i++) lines.push(...printedStep(reference.steps[i], weft.steps[i]));
  return lines.join("\n");
}

function printedStep(reference, weft) {
  const { key, sent } = reference ?? weft;
  const clients = new Set([...Object.keys(reference?.got ?? {}), ...Object.keys(weft?.got ?? {})]);
  return [`-- ${key}`, ...sent.map((m) => `   >> ${text(m)}`), ...[...clients].flatMap((c) => diff(reference?.got[c] ?? [], weft?.got[c] ?? [], c))];
}

/** printedProblem is one difference. */
export function printedProblem({ key, client, why, reference = [], weft = [] }) {
  return [`  ${key}${client ? `, client ${client}` : ""}${why ? `: ${why}` : ""}`, ...diff(reference, weft, client ?? "").map((l) => `  ${l}`)].join("\n");
}

// The common lines, and the others of both sides, by the longest common subsequence.
function diff(reference, weft, client) {
  const [a, b] = [reference.map(line), weft.map(line)];
  const common = Array.from({ length: a.length + 1 }, () => new Array(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  }
  const lines = [];
  for (let [i, j] = [0, 0]; i < a.length || j < b.length; ) {
    if (a[i] === b[j]) lines.push(`   ${client} << ${a[i]}`), i++, j++;
    else if (j === b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) lines.push(` - ${client} << ${a[i++]}`);
    else lines.push(` + ${client} << ${b[j++]}`);
  }
  return lines;
}

function line(item) {
  const { frame, holds, ...rest } = plain(item);
  const said = frame === undefined ? text(rest) : text({ ...frame, ...rest });
  return holds === undefined ? said : `${said} => ${text(holds)}`;
}

const LONG = 1_000;

function text(v) {
  const s = typeof v === "string" ? v : canonical(v) ?? "undefined";
  return s.length > LONG ? `${s.slice(0, LONG)}... (${s.length} characters)` : s;
}
