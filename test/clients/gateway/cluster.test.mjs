// Every check for pairs of client libraries, on a cluster of three NATS servers.
import { after, before, describe } from "node:test";
import { checks } from "./checks/all.mjs";
import { suite } from "./checks/suite.mjs";
import { Desk } from "./desk.mjs";

for (const { nodes, further } of [{ nodes: 1, further: 0 }, { nodes: 2, further: 3 }]) {
  describe(`${nodes} nodes`, () => {
    let desk;
    before(async () => {
      desk = await Desk.start({ machines: nodes, cluster: true });
    });
    after(() => desk?.stop());
    suite(checks, { further, nodes, fabric: "cluster", desk: () => desk });
  });
}
