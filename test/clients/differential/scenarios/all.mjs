// All scenarios.
import bus from "./bus.mjs";
import contexts from "./contexts.mjs";
import hello from "./hello.mjs";
import join from "./join.mjs";
import methods from "./methods.mjs";
import ordering from "./ordering.mjs";
import restrictions from "./restrictions.mjs";
import streams from "./streams.mjs";
import transport from "./transport.mjs";

export const scenarios = [...transport, ...hello, ...join, ...methods, ...streams, ...contexts, ...bus, ...restrictions, ...ordering];
