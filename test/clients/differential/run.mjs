// Plays the scenarios at both gateways and compares. By hand:
//
//	node differential/run.mjs [--only PART-OF-A-NAME] [--weft ws://..] [--reference ws://..] [--print] [--patience MS]
import { parseArgs } from "node:util";
import { Comparison } from "./compare.mjs";
import { differences } from "./differences.mjs";
import { startReference, startWeft } from "./gateways.mjs";
import { printed, printedProblem } from "./print.mjs";
import { scenarios } from "./scenarios/all.mjs";
import { play } from "./stage.mjs";

const PATIENCE = 2_000; // ms for what the reference sends and Weft has not sent yet

/**
 * compareAll gives {scenario, reference, weft, problems} for each scenario. The
 * reference is one scenario ahead, and tells what each step at Weft waits for.
 */
export async function* compareAll(list, urls, comparison, patience = PATIENCE) {
  const ahead = (scenario) => scenario && play(scenario, urls.reference).catch((error) => ({ steps: [], error }));
  let next = ahead(list[0]);
  for (const [i, scenario] of list.entries()) {
    const reference = await next;
    next = ahead(list[i + 1]);
    if (reference.error) throw reference.error;
    const satisfied = (step, n) => comparison.step(scenario, reference.steps[n], step).length === 0;
    const weft = await play(scenario, urls.weft, { satisfied, patience }).catch((error) => ({ steps: [], error }));
    const problems = weft.error ? [{ key: "the whole", why: `${weft.error.message}: ${weft.error.cause?.message}` }] : comparison.scenario(scenario, reference, weft);
    yield { scenario, reference, weft, problems };
  }
}

async function main() {
  const { values } = parseArgs({ options: { only: { type: "string", default: "" }, weft: { type: "string" }, reference: { type: "string" }, print: { type: "boolean" }, patience: { type: "string", default: `${PATIENCE}` } } });
  const started = [];
  const at = async (url, start) => {
    if (url) return url;
    started.push(await start());
    return started.at(-1).url;
  };
  try {
    const urls = { reference: await at(values.reference, startReference), weft: await at(values.weft, startWeft) };
    const comparison = new Comparison(differences);
    const list = scenarios.filter((s) => s.name.includes(values.only));
    let different = 0;
    for await (const { scenario, problems, ...both } of compareAll(list, urls, comparison, Number(values.patience))) {
      if (values.print) console.log(printed(scenario, both));
      if (problems.length === 0) continue;
      different++;
      console.log(`${scenario.name}: ${scenario.about}`);
      for (const p of problems) console.log(printedProblem(p));
    }
    for (const m of comparison.missing()) if (!values.only || !m.endsWith("anywhere")) console.log(`listed, and does not occur: ${m}`);
    console.log(`${different} of ${list.length} scenarios differ`);
    process.exitCode = different > 0 ? 1 : 0;
  } finally {
    for (const g of started) await g.stop();
  }
}

if (import.meta.filename === process.argv[1]) await main();
