// All checks that run for pairs of apps.
import { bus } from "./bus.mjs";
import { channels } from "./channels.mjs";
import { connection, platform } from "./connection.mjs";
import { contexts } from "./contexts.mjs";
import { methods } from "./methods.mjs";
import { streams } from "./streams.mjs";

export const checks = { ...connection, ...methods, ...streams, ...contexts, ...bus, ...channels, ...platform };
