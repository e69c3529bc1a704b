// Every check for pairs of client libraries, on the embedded NATS server.
import { after, before, describe } from "node:test";
import { checks } from "./checks/all.mjs";
import { suite } from "./checks/suite.mjs";
import { Desk } from "./desk.mjs";

for (const { nodes, further } of [{ nodes: 1, further: 1 }, { nodes: 2, further: 2 }]) {
  describe(`${nodes} nodes`, () => {
    let desk;
    before(async () => {
      desk = await Desk.start({ machines: nodes });
    });
    after(() => desk?.stop());
    suite(checks, { further, nodes, fabric: "embedded", desk: () => desk });
  });
}
