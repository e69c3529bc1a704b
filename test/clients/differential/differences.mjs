// Where Weft's gateway differs from the reference on purpose. The package doc of
// gateway has a line for every id. Each entry has to occur, and nothing else may
// differ.
import { matches, plain } from "./compare.mjs";
import { canonical } from "./holding.mjs";

const replaced = (item, frame) => ({ ...item, frame: { ...item.frame, ...frame } });

const identities = ["resolved_identity", "identity", "publisher-identity"];

// The reasons that differ: of the reference, and of Weft.
const words = [
  [/^Unhandled message |^Unable to find domain for message /, /./],
  [/^No protocol method |^\[object Object\]$|is not ISeqable$|^re-matches must|^Cannot read properties of|^No method in multimethod |is not a function$/, /./],
  [/^Unable to find peer with id bogus$/, /^Unable to find peer with id bogus in domain/],
  [/^Invalid or expired token: /, /^Invalid or expired token: /],
  [/^signature verification failed$/, /^invalid token$/],
  [/^Bad lifetime value $/, /^Bad lifetime value ./],
];

// Two frames that are the same but for these keys, which they both have.
function apart(r, w, keys) {
  const rest = (item) => canonical({ ...plain(item), frame: { ...item.frame, ...Object.fromEntries(keys.map((k) => [k, undefined])) } });
  return r?.frame && w?.frame && keys.every((k) => k in r.frame && k in w.frame) && rest(r) === rest(w);
}

const byId = ({ frame }) => [...(frame.methods ?? [])].sort((a, b) => (String(a.id) < String(b.id) ? -1 : 1));

// What is seen, but for the platform, in an order that does not matter.
const seen = (peers = []) => canonical(peers.filter((p) => p.peer !== platform).map((p) => ({ ...p, methods: p.methods.map(canonical).sort() })).sort((a, b) => (a.peer < b.peer ? -1 : 1)));

const platform = "stranger#1"; // the one peer that no client of the scenario is

const channels = ["Red", "Green", "Blue", "Pink", "Yellow", "DarkYellow", "Orange", "Purple", "Lime", "Cyan"].map((name) => `___channel___${name}`);

const isUpdate = (item, context) => item?.frame?.type === "context-updated" && item.frame.context_id === context;

// How many items at the start have something in common.
function run(items, has) {
  const end = items.findIndex((item) => !has(item));
  return end < 0 ? items.length : end;
}

// What each side sends in place of the other, at one step, to one client: patterns,
// that is what a frame has among other things.
const place = (scenario, at, client, reference, weft) => ({ scenario, at, client, reference, weft });

/**
 * Some differences hold in all scenarios: tidy takes an item of either side and
 * gives another, or nothing to leave it out; equal takes what is left of both sides
 * where they differ, and says how many items of each say the same in other words.
 * Others are at certain places.
 */
export const differences = [
  {
    id: "stamped-identity",
    reference: "an identity has machine, user and login from the gateway",
    weft: "it also has node and osUser",
    tidy(item, side) {
      const key = side === "weft" && item.frame && identities.find((k) => item.frame[k]);
      if (!key) return item;
      const { node, osUser, ...identity } = item.frame[key];
      const stamps = [node, osUser].every((v) => v && !v.endsWith("of-the-client"));
      return stamps ? replaced(item, { [key]: identity }) : item;
    },
    places: [
      place("hello/peer-sees-identity", "a hello", "a", [{ type: "welcome", resolved_identity: { login: "spoof" } }], [{ type: "welcome", resolved_identity: { login: "u1" } }]),
      place("hello/peer-sees-identity", "b join", "b", [{ type: "peer-added", identity: { login: "spoof" } }], [{ type: "peer-added", identity: { login: "u1" } }]),
      place("hello/machine-given", "a hello", "a", [{ type: "welcome", resolved_identity: { machine: "machine-of-the-client" } }], [{ type: "welcome", resolved_identity: { machine: "<machine>" } }]),
      place("hello/stamps-given", "a hello", "a", [{ type: "welcome", resolved_identity: { node: "node-of-the-client", osUser: "user-of-the-client" } }], [{ type: "welcome", resolved_identity: { node: undefined, osUser: undefined } }]),
      place("hello/gateway-token", "b hello", "b", [{ type: "welcome", resolved_identity: { login: undefined } }], [{ type: "welcome", resolved_identity: { login: "u1" } }]),
      place("hello/gateway-token-visible", "b hello", "b", [{ type: "welcome", resolved_identity: { login: undefined } }], [{ type: "welcome", resolved_identity: { login: "u1" } }]),
      place("hello/gateway-token-visible", "b join", "a", [{ type: "peer-added", identity: { login: undefined } }], [{ type: "peer-added", identity: { login: "u1" } }]),
    ],
  },
  {
    id: "activity",
    reference: "activity is one of the available domains",
    weft: "it is not",
    tidy(item, side) {
      const domains = item.frame?.available_domains;
      if (side !== "reference" || !domains) return item;
      return replaced(item, { available_domains: domains.filter((d) => d.uri !== "activity") });
    },
  },
  {
    id: "channels-exist",
    reference: "there are no contexts until somebody creates one",
    weft: "the contexts of the ten channels are there from the start",
    tidy: (item, side) => (side === "weft" && item.frame?.type === "context-added" && channels.includes(item.frame.name) ? undefined : item),
  },
  {
    id: "platform-peer",
    reference: "all peers are clients",
    weft: "the platform is a peer, which announces itself and its methods",
    tidy: (item, side) => (side === "weft" && ["new_peer_id", "server_id", "removed_id"].some((k) => item.frame?.[k] === platform) ? undefined : item),
  },
  {
    id: "no-empty-push",
    reference: "an update that changes nothing is pushed to the members",
    weft: "it is not",
    equal: ([r], [w]) => r?.frame?.type === "context-updated" && !r.changed && !isUpdate(w, r.frame.context_id) && [1, 0],
  },
  {
    id: "own-differences",
    reference: "a member gets the delta as it was sent",
    weft: "a member gets the difference between what it has and what it should have, which may stand for several updates",
    equal(reference, weft) {
      const context = reference[0]?.frame?.context_id;
      const [r, w] = [reference, weft].map((items) => items.slice(0, run(items, (item) => isUpdate(item, context))));
      const [from, to] = [r.at(-1), w.at(-1)];
      const alike = to && w.length <= r.length && canonical(to.holds) === canonical(from.holds) && to.frame.updater_id === from.frame.updater_id;
      return alike && [r.length, w.length];
    },
  },
  {
    id: "own-update",
    reference: "who updates a context is not told of it, though the library may have made something else of the update",
    weft: "after the answer it may be told what is right",
    equal: ([r], [w]) => w?.frame?.type === "context-updated" && w.frame.updater_id === w.frame.peer_id && r?.frame?.type !== "success" && !isUpdate(r, w.frame.context_id) && [0, 1],
  },
  {
    id: "net-announcements",
    reference: "what is registered together is announced together, and everything that comes and goes",
    weft: "it may be announced in parts, and what is gone or back again at once not at all",
    equal(reference, weft) {
      const [r, w] = [reference, weft].map((items) => items.slice(0, run(items, (item) => item.sees)));
      const after = w.at(-1)?.sees ?? r[0]?.saw;
      const news = w.every((item) => canonical(item.saw) !== canonical(item.sees));
      return r.length > 0 && r.length + w.length > 1 && news && seen(r.at(-1).sees) === seen(after) && [r.length, w.length];
    },
  },
  {
    id: "own-words",
    reference: "reasons show what its code says when it fails, or how it is built",
    weft: "a reason is a sentence, and the same for the same mistake",
    equal: ([r], [w]) => apart(r, w, ["reason"]) && words.some(([from, to]) => from.test(r.frame.reason) && to.test(w.frame.reason)) && [1, 1],
  },
  {
    id: "spoof-domain",
    reference: "an error about the peer of another connection has the domain null",
    weft: "it has the domain of the request",
    equal: ([r], [w]) => apart(r, w, ["domain"]) && r.frame.domain === null && typeof w.frame.domain === "string" && [1, 1],
  },
  {
    id: "json-errors",
    reference: "what is no JSON is answered with a bare text",
    weft: "it is answered with an error",
    equal: ([r], [w]) => r?.text !== undefined && matches({ type: "error", domain: "global", reason_uri: "global.errors.failure", request_id: null, reason: /./ }, w?.frame) && [1, 1],
    places: [
      place("transport/not-an-object", "a raw", "a", [{ type: "error", request_id: -1, reason_uri: "global.errors.unhandled_message" }], [{ type: "error", request_id: null, reason_uri: "global.errors.failure" }]),
      place("transport/not-an-object", "a raw/5", "a", [{ type: "error", request_id: -1, reason_uri: "global.errors.unhandled_message" }], [{ type: "error", request_id: null, reason_uri: "global.errors.failure" }]),
      place("transport/not-an-object", "a raw/7", "a", [{ type: "error", request_id: -1, reason_uri: "global.errors.unhandled_message" }], [{ type: "error", request_id: null, reason_uri: "global.errors.failure" }]),
    ],
  },
  {
    id: "method-order",
    reference: "methods that are announced together come in the order of their registration",
    weft: "they come in the order of their names",
    equal: ([r], [w]) => apart(r, w, ["methods"]) && r.frame.type === "methods-added" && canonical(byId(r)) === canonical(byId(w)) && [1, 1],
  },
  {
    id: "origin-403",
    reference: "a page that may not connect gets 401",
    weft: "it gets 403",
    equal: ([r], [w]) => r?.closed === "HTTP 401" && w?.closed === "HTTP 403" && [1, 1],
  },
  {
    id: "second-hello",
    reference: "a second hello on a connection adds a peer to it",
    weft: "it replaces the peer of the first",
    places: [
      place("hello/twice", "a hello/2", "watcher", [], [{ type: "methods-removed", methods: ["0"] }, { type: "peer-removed", removed_id: "peer:a" }]),
      place("hello/twice", "a join/2", "a", [{ type: "peer-added", new_peer_id: "peer:a" }, { type: "methods-added", methods: [{ id: "0" }] }, { type: "peer-added", new_peer_id: "peer:a/2" }, { type: "peer-added", new_peer_id: "peer:watcher" }], [{ type: "peer-added", new_peer_id: "peer:watcher" }]),
      place("hello/twice", "a register/2", "a", [{ type: "methods-added", methods: [{ id: "1" }] }], []),
      place("hello/twice-old-peer", "a hello/2", "watcher", [], [{ type: "peer-removed", removed_id: "peer:a" }]),
      place("hello/twice-old-peer", "a register", "watcher", [{ type: "methods-added", methods: [{ id: "0" }] }], []),
      place("hello/twice-old-peer", "a register", "a", [{ type: "methods-added", methods: [{ id: "0" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("hello/twice-old-peer", "watcher call", "a", [{ type: "invoke", method_id: "0" }], []),
      place("hello/twice-old-peer", "watcher call", "watcher", [], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("hello/twice-same-instance", "a hello/2", "a", [{ type: "error", reason_uri: "global.errors.already_seen" }], [{ type: "welcome" }]),
      place("hello/twice-same-instance", "a join", "a", [{ type: "success", peer_id: "peer:a" }], [{ type: "success", peer_id: "peer:a/2" }]),
    ],
  },
  {
    id: "realm",
    reference: "peers and contexts of two logins do not see each other",
    weft: "all peers of the realm do",
    places: [
      place("visibility/two-users", "b join", "b", [], [{ type: "peer-added", new_peer_id: "peer:a" }]),
      place("visibility/two-users", "b join", "a", [], [{ type: "peer-added", new_peer_id: "peer:b" }]),
      place("visibility/two-users", "a register", "b", [], [{ type: "methods-added", methods: [{ id: "0" }] }]),
      place("visibility/two-users", "b call", "b", [{ type: "error", reason_uri: "agm.errors.invocation.failure" }], []),
      place("visibility/two-users", "b call", "a", [], [{ type: "invoke", method_id: "0" }]),
      place("visibility/two-users", "a publish", "b", [], [{ type: "event", subscription_id: "subscription#1" }]),
      place("visibility/two-users-contexts", "a create-context", "b", [], [{ type: "context-added", context_id: "context:C" }]),
      place("visibility/two-users-contexts", "b create-context", "b", [{ type: "context-added", context_id: "context:C/2" }, { type: "context-created", context_id: "context:C/2" }], [{ type: "subscribed-context", holds: { a: 1, b: 1 } }]),
      place("visibility/two-users-contexts", "b create-context", "a", [], [{ type: "context-updated", context_id: "context:C" }]),
      place("visibility/two-users-contexts", "a subscribe-context", "a", [{ type: "subscribed-context", holds: { a: 1 } }], [{ type: "subscribed-context", holds: { a: 1, b: 1 } }]),
      place("visibility/two-users-contexts", "late hello", "late", [{ type: "context-added", context_id: "context:C/2" }], []),
    ],
  },
  {
    id: "agm-join",
    reference: "a peer may register methods in a domain that it has not joined",
    weft: "it may not",
    places: [
      place("register/not-joined", "server register", "server", [{ type: "methods-added", methods: [{ id: "0" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("register/not-joined", "server register", "caller", [{ type: "methods-added", methods: [{ id: "0" }] }], []),
      place("register/not-joined", "server unregister", "server", [{ type: "methods-removed", methods: ["0"] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.unregistration.failure" }]),
      place("register/not-joined", "server unregister", "caller", [{ type: "methods-removed", methods: ["0"] }], []),
    ],
  },
  {
    id: "accepted-twice",
    reference: "a subscription that is accepted again is on both branches, and the subscriber is told again",
    weft: "the second acceptance is ignored",
    places: [
      place("stream/accept-twice-same", "publisher accepted/2", "subscriber", [{ type: "subscribed", subscription_id: "subscription#1" }], []),
      place("stream/accept-twice-other", "publisher accepted/2", "subscriber", [{ type: "subscribed", subscription_id: "subscription#1" }], []),
      place("stream/accept-twice-other", "publisher publish/2", "subscriber", [{ type: "event", subscription_id: "subscription#1" }], []),
    ],
  },
  {
    id: "leave-quiet",
    reference: "who leaves what it has not joined is announced to the others",
    weft: "it is not",
    places: [
      place("leave/twice", "a leave/2", "b", [{ type: "peer-removed", removed_id: "peer:a" }], []),
      place("leave/twice", "c leave", "b", [{ type: "peer-removed", removed_id: "peer:c" }], []),
    ],
  },
  {
    id: "nameless-context",
    reference: "a context may lack a name, or have a number as its name",
    weft: "it may not",
    places: [
      place("context/create-no-name", "a create-context", "a", [{ type: "context-added", context_id: "context:null" }, { type: "context-created", context_id: "context:null" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-name", "a create-context/2", "a", [{ type: "subscribed-context", context_id: "context:null" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-name", "a create-context/3", "a", [{ type: "context-added", context_id: "context:" }, { type: "context-created", context_id: "context:" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-name", "a create-context/4", "a", [{ type: "context-added", context_id: "context:7" }, { type: "context-created", context_id: "context:7" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-name", "late hello", "late", [{ type: "context-added", context_id: "context:" }, { type: "context-added", context_id: "context:7" }, { type: "context-added", context_id: "context:null" }], []),
    ],
  },
  {
    id: "absent-remove",
    reference: "removing below what is not there makes something, or fails",
    weft: "it changes nothing",
    places: [
      place("delta/remove-below-missing", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: 1, not: null } }], [{ type: "subscribed-context", holds: { a: 1 } }]),
      place("delta/remove-below-value", "writer update-context", "writer", [{ type: "error", reason_uri: "global.errors.failure" }], [{ type: "success", holds: { a: 1 } }]),
    ],
  },
  {
    id: "array-elements",
    reference: "a path through a list replaces the list by an object, while clients change the element",
    weft: "a number is an element of the list, for everybody",
    places: [
      place("delta/set-in-list", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: { "1": "x" } } }], [{ type: "subscribed-context", holds: { a: [1, "x"] } }]),
      place("delta/set-past-list", "writer update-context", "writer", [{ type: "success", holds: { a: [1, null, null, "x"] } }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("delta/set-past-list", "writer update-context", "member", [{ type: "context-updated", context_id: "context:C0" }], []),
      place("delta/set-past-list", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: { "3": "x" } } }], [{ type: "subscribed-context", holds: { a: [1] } }]),
      place("delta/set-key-of-list", "writer update-context", "member", [{ type: "context-updated", holds: { a: [1, 2] } }], [{ type: "context-updated", holds: { a: { key: "x" } } }]),
      place("delta/set-below-list", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: { "0": { x: 2 } } } }], [{ type: "subscribed-context", holds: { a: [{ x: 2 }] } }]),
      place("delta/remove-in-list", "writer update-context", "member", [{ type: "context-updated", holds: { a: [1, null] } }], [{ type: "context-updated", holds: { a: [1] } }]),
      place("delta/remove-in-list", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: [1, 2] } }], [{ type: "subscribed-context", holds: { a: [1] } }]),
    ],
  },
  {
    id: "one-name",
    reference: "a peer may register a name under several ids, also a method and a stream, or two signatures",
    weft: "it may not; names that differ in case only are one",
    places: [
      place("register/one-name-two-ids", "server register/2", "server", [{ type: "methods-added", methods: [{ id: "1" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("register/one-name-two-ids", "server register/2", "caller", [{ type: "methods-added", methods: [{ id: "1" }] }], []),
      place("register/one-name-two-ids", "caller call", "server", [{ type: "invoke", method_id: "1" }], []),
      place("register/one-name-two-ids", "caller call", "caller", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("register/one-name-two-ids", "caller call/2", "server", [{ type: "invoke", invocation_id: "call#2" }], [{ type: "invoke", invocation_id: "call#1" }]),
      place("register/one-name-two-ids-at-once", "server register", "server", [{ type: "methods-added", methods: [{ id: "0" }, { id: "1" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("register/one-name-two-ids-at-once", "server register", "caller", [{ type: "methods-added", methods: [{ id: "0" }, { id: "1" }] }], []),
      place("register/case", "server register/2", "server", [{ type: "methods-added", methods: [{ id: "1" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("register/case", "server register/2", "caller", [{ type: "methods-added", methods: [{ id: "1" }] }], []),
      place("register/case", "caller call", "server", [{ type: "invoke", method_id: "1" }], []),
      place("register/case", "caller call", "caller", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("register/method-and-stream", "server register", "server", [{ type: "methods-added", methods: [{ id: "0" }, { id: "1" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("register/method-and-stream", "server register", "caller", [{ type: "methods-added", methods: [{ id: "0" }, { id: "1" }] }], []),
      place("register/method-and-stream", "caller call", "server", [{ type: "invoke", method_id: "0" }], []),
      place("register/method-and-stream", "caller call", "caller", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("register/method-and-stream", "caller subscribe", "server", [{ type: "add-interest", subscription_id: "subscription#1" }], []),
      place("register/method-and-stream", "caller subscribe", "caller", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("register/two-signatures", "server register", "server", [{ type: "methods-added", methods: [{ id: "0" }, { id: "1" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("register/two-signatures", "server register", "caller", [{ type: "methods-added", methods: [{ id: "0" }, { id: "1" }] }], []),
      place("register/two-signatures", "caller call", "server", [{ type: "invoke", method_id: "1" }], []),
      place("register/two-signatures", "caller call", "caller", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
    ],
  },
  {
    id: "second-creator",
    reference: "the object of the second creator of a context is dropped",
    weft: "it is written, as an update",
    places: [
      place("context/create-existing", "late create-context", "late", [{ type: "subscribed-context", holds: { a: 1 } }], [{ type: "subscribed-context", holds: { a: 1, other: 1 } }]),
      place("context/create-existing", "late create-context", "writer", [], [{ type: "context-updated", context_id: "context:C" }]),
      place("context/create-existing", "late create-context", "member", [], [{ type: "context-updated", context_id: "context:C" }]),
      place("context/create-existing", "writer update-context", "writer", [{ type: "success", holds: { a: 1, b: 2 } }], [{ type: "success", holds: { a: 1, other: 1, b: 2 } }]),
      place("context/create-existing", "writer update-context", "member", [{ type: "context-updated", holds: { a: 1, b: 2 } }], [{ type: "context-updated", holds: { a: 1, other: 1, b: 2 } }]),
      place("context/create-existing", "writer update-context", "late", [{ type: "context-updated", holds: { a: 1, b: 2 } }], [{ type: "context-updated", holds: { a: 1, other: 1, b: 2 } }]),
      place("context/create-existing", "writer create-context/2", "writer", [{ type: "subscribed-context", holds: { a: 1, b: 2 } }], [{ type: "subscribed-context", holds: { a: 1, again: 1, b: 2, other: 1 } }]),
      place("context/create-existing", "writer create-context/2", "member", [], [{ type: "context-updated", context_id: "context:C" }]),
      place("context/create-existing", "writer create-context/2", "late", [], [{ type: "context-updated", context_id: "context:C" }]),
    ],
  },
  {
    id: "stream-or-method",
    reference: "streams may be called, and methods subscribed to",
    weft: "they may not",
    places: [
      place("call/stream", "caller call", "server", [{ type: "invoke", method_id: "0" }], []),
      place("call/stream", "caller call", "caller", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("stream/subscribe-method", "subscriber subscribe", "publisher", [{ type: "add-interest", subscription_id: "subscription#1" }], []),
      place("stream/subscribe-method", "subscriber subscribe", "subscriber", [], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
    ],
  },
  {
    id: "strict-input",
    reference: "texts, numbers and lists are taken for identities, method definitions, contexts and paths, names may be missing, and topics empty",
    weft: "they are refused",
    places: [
      place("hello/identity-no-object", "b hello", "b", [{ type: "welcome" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("register/no-name", "server register", "server", [{ type: "methods-added", methods: [{ id: "0" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("register/no-name", "server register", "caller", [{ type: "methods-added", methods: [{ id: "0" }] }], []),
      place("register/no-name", "server register/2", "server", [{ type: "methods-added", methods: [{ name: "NoId", flags: {} }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("register/no-name", "server register/2", "caller", [{ type: "methods-added", methods: [{ name: "NoId", flags: {} }] }], []),
      place("register/no-name", "server register/4", "server", [{ type: "methods-added", methods: [{ id: "2" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("register/no-name", "server register/4", "caller", [{ type: "methods-added", methods: [{ id: "2" }] }], []),
      place("register/no-name", "server register/5", "server", [{ type: "methods-added", methods: [{}] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("register/no-name", "server register/5", "caller", [{ type: "methods-added", methods: [{}] }], []),
      place("register/no-object", "server register/2", "server", [{ type: "methods-added", methods: [null] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("register/no-object", "server register/2", "caller", [{ type: "methods-added", methods: [{}] }], []),
      place("register/long-name", "server register", "server", [{ type: "methods-added", methods: [{ id: "0" }] }, { type: "success" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("register/long-name", "server register", "caller", [{ type: "methods-added", methods: [{ id: "0" }] }], []),
      place("restriction/bad-grammar", "a register", "a", [{ type: "error", reason_uri: "agm.errors.failure" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("restriction/bad-grammar", "a register/2", "a", [{ type: "error", reason_uri: "agm.errors.failure" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("restriction/bad-grammar", "a register/3", "a", [{ type: "error", reason_uri: "agm.errors.failure" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("restriction/bad-grammar", "a register/4", "a", [{ type: "error", reason_uri: "agm.errors.failure" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("restriction/bad-grammar", "a register/5", "a", [{ type: "error", reason_uri: "agm.errors.failure" }], [{ type: "error", reason_uri: "agm.errors.registration.failure" }]),
      place("hello/login-empty", "a hello", "a", [{ type: "welcome" }], [{ type: "error", reason_uri: "global.errors.authentication.failure" }]),
      place("context/create-data", "b subscribe-context/2", "b", [{ type: "subscribed-context", data: null }], [{ type: "subscribed-context", data: {} }]),
      place("context/create-data", "b subscribe-context/3", "b", [{ type: "subscribed-context", data: null }], [{ type: "subscribed-context", data: {} }]),
      place("context/create-no-object", "a create-context", "a", [{ type: "context-added", context_id: "context:C-text" }, { type: "context-created", context_id: "context:C-text" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-object", "a create-context/2", "a", [{ type: "context-added", context_id: "context:C-7" }, { type: "context-created", context_id: "context:C-7" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-object", "a create-context/3", "a", [{ type: "context-added", context_id: "context:C-1" }, { type: "context-created", context_id: "context:C-1" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("context/create-no-object", "a create-context/4", "a", [{ type: "context-added", context_id: "context:C-true" }, { type: "context-created", context_id: "context:C-true" }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("delta/bad-path", "writer update-context", "writer", [{ type: "success", holds: { a: 1 } }], [{ type: "error", reason_uri: "global.errors.failure" }]),
      place("delta/bad-path", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: 1 }], [{ type: "subscribed-context", holds: { a: 1 } }]),
      place("bus/no-topic", "speaker publish", "speaker", [], [{ type: "error", reason_uri: "bus.errors.failure" }]),
      place("bus/no-topic", "speaker publish/2", "speaker", [], [{ type: "error", reason_uri: "bus.errors.failure" }]),
      place("bus/empty-topic", "listener subscribe", "listener", [{ type: "subscribed", subscription_id: "subscription#1" }], [{ type: "error", reason_uri: "bus.errors.failure" }]),
      place("bus/empty-topic", "speaker publish", "listener", [{ type: "event", subscription_id: "subscription#1" }], []),
      place("bus/empty-topic", "speaker publish", "speaker", [], [{ type: "error", reason_uri: "bus.errors.failure" }]),
    ],
  },
  {
    id: "arguments",
    reference: "arguments are forwarded whatever they are",
    weft: "arguments are an object by names or a list by positions, the other is null, and a single value is {_value}",
    places: [
      place("call/arguments-of-both-kinds", "caller call/2", "server", [{ type: "invoke", arguments: [] }], [{ type: "invoke", arguments: null }]),
      place("call/arguments-of-both-kinds", "caller call/3", "server", [{ type: "invoke", arguments_kv: {} }], [{ type: "invoke", arguments_kv: null }]),
      place("call/arguments-odd", "caller call", "server", [{ type: "invoke", arguments_kv: "text" }], [{ type: "invoke", arguments_kv: { _value: "text" } }]),
      place("call/arguments-odd", "caller call/2", "server", [{ type: "invoke", arguments: null, arguments_kv: [1] }], [{ type: "invoke", arguments: [1], arguments_kv: null }]),
      place("call/arguments-odd", "caller call/4", "server", [{ type: "invoke", arguments: { a: 1 }, arguments_kv: null }], [{ type: "invoke", arguments: null, arguments_kv: { a: 1 } }]),
      place("call/arguments-odd", "caller call/5", "server", [{ type: "invoke", arguments_kv: 7 }], [{ type: "invoke", arguments_kv: { _value: 7 } }]),
    ],
  },
  {
    id: "own-reasons",
    reference: "the reasons of clients that leave, unsubscribe and drop are forwarded",
    weft: "the gateway gives its own, but for the text of a drop",
    places: [
      place("leave/reason", "a leave", "b", [{ type: "peer-removed", reason_uri: "my.reason" }], [{ type: "peer-removed", reason_uri: null }]),
      place("gone/server-left", "server leave", "caller", [{ type: "peer-removed", reason_uri: "my.reason" }], [{ type: "peer-removed", reason_uri: null }]),
      place("stream/two-subscribers", "other leave", "publisher", [{ type: "remove-interest", reason_uri: null }], [{ type: "remove-interest", reason_uri: "" }]),
      place("stream/drop", "publisher drop-subscription", "subscriber", [{ type: "subscription-cancelled", reason_uri: "my.uri" }], [{ type: "subscription-cancelled", reason_uri: null }]),
      place("stream/drop", "publisher drop-subscription/3", "subscriber", [{ type: "subscription-cancelled", reason: null }], [{ type: "subscription-cancelled", reason: "the publisher closed the subscription" }]),
      place("stream/unsubscribe", "subscriber unsubscribe/3", "publisher", [{ type: "remove-interest", reason_uri: "my.uri" }], [{ type: "remove-interest", reason_uri: "" }]),
      place("stream/unsubscribe", "subscriber unsubscribe/4", "publisher", [{ type: "remove-interest", reason_uri: null }], [{ type: "remove-interest", reason_uri: "" }]),
      place("order/unsubscribe-subscribe", "subscriber unsubscribe+subscribe", "publisher", [{ type: "remove-interest", reason_uri: null }], [{ type: "remove-interest", reason_uri: "" }]),
      place("stream/publisher-left", "publisher leave", "subscriber", [{ type: "peer-removed", reason_uri: "my.uri" }], [{ type: "peer-removed", reason_uri: null }]),
      place("stream/subscriber-left", "subscriber leave", "publisher", [{ type: "remove-interest", subscription_id: "subscription#1", reason: "bye" }, { type: "peer-removed", reason: "bye" }], [{ type: "remove-interest", subscription_id: "subscription#1", reason: "ClientInitiated" }, { type: "peer-removed", reason: null }]),
    ],
  },
  {
    id: "pending-subscription",
    reference: "a subscription has an id for both sides, and its end, before it is accepted",
    weft: "it has none before: if its publisher goes, or its subscriber, the request fails; if its subscriber goes the publisher hears it when it accepts, and private data is dropped",
    places: [
      place("gone/everything", "server close", "caller", [{ type: "subscription-cancelled", subscription_id: "subscription#2" }], [{ type: "error", request_id: "caller6", reason_uri: "agm.errors.invocation.failure" }]),
      place("stream/post-pending", "publisher post", "subscriber", [{ type: "event", subscription_id: "subscription#1" }], []),
      place("stream/unsubscribe-pending", "subscriber unsubscribe", "publisher", [{ type: "remove-interest", subscription_id: "subscription#1" }], []),
      place("stream/unsubscribe-pending", "subscriber unsubscribe", "subscriber", [{ type: "success" }], [{ type: "error", reason_uri: "agm.errors.subscription.invalid_subscription" }]),
      place("stream/unsubscribe-pending", "publisher accepted", "subscriber", [], [{ type: "subscribed", subscription_id: "subscription#1" }]),
      place("stream/unsubscribe-pending", "publisher publish", "subscriber", [], [{ type: "event", subscription_id: "subscription#1" }]),
      place("stream/unregister", "publisher unregister", "subscriber", [{ type: "subscription-cancelled", subscription_id: "subscription#2" }], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("stream/unregister", "publisher accepted/2", "publisher", [{ type: "error", reason_uri: "agm.errors.failure" }], []),
      place("stream/publisher-left", "publisher leave", "subscriber", [{ type: "subscription-cancelled", subscription_id: "subscription#2" }], [{ type: "error", reason_uri: "agm.errors.invocation.failure" }]),
      place("stream/subscriber-left", "subscriber leave", "publisher", [{ type: "remove-interest", subscription_id: "subscription#2" }], []),
      place("stream/subscriber-left", "subscriber leave", "subscriber", [], [{ type: "error", request_id: "subscriber4", reason_uri: "agm.errors.invocation.failure" }]),
      place("stream/subscriber-closed", "subscriber close", "publisher", [{ type: "remove-interest", subscription_id: "subscription#2" }], []),
      place("stream/subscriber-closed", "publisher accepted/2", "publisher", [], [{ type: "remove-interest", subscription_id: "subscription#2" }]),
    ],
  },
  {
    id: "no-sequence",
    reference: "sequence and snapshot of a publisher are forwarded",
    weft: "they are not: clients do not send them",
    places: [
      place("stream/accept", "publisher publish/3", "subscriber", [{ type: "event", sequence: 5, snapshot: true }], [{ type: "event", sequence: null, snapshot: null }]),
      place("stream/post", "publisher post/2", "subscriber", [{ type: "event", sequence: 9, snapshot: false }], [{ type: "event", sequence: null, snapshot: null }]),
    ],
  },
  {
    id: "same-method",
    reference: "an id that is registered again is announced, and keeps its subscriptions",
    weft: "the same definition is not announced again, and another one is another method",
    places: [
      place("register/same-again", "server register/2", "server", [{ type: "methods-added", methods: [{ id: "0" }] }], []),
      place("register/same-again", "server register/2", "caller", [{ type: "methods-added", methods: [{ id: "0" }] }], []),
      place("stream/replace", "publisher register/2", "subscriber", [{ type: "methods-added", methods: [{ id: "0" }] }], [{ type: "subscription-cancelled", subscription_id: "subscription#1" }, { type: "methods-added", methods: [{ id: "0" }] }]),
      place("stream/replace", "publisher publish", "subscriber", [{ type: "event", subscription_id: "subscription#1" }], []),
    ],
  },
  {
    id: "context-id",
    reference: "a context that is created again has another id",
    weft: "it has the id of its name",
    places: [
      place("context/destroy", "writer create-context/2", "writer", [{ type: "context-added", context_id: "context:C/2" }, { type: "context-created", context_id: "context:C/2" }], [{ type: "context-added", context_id: "context:C" }, { type: "context-created", context_id: "context:C" }]),
      place("context/destroy", "writer create-context/2", "member", [{ type: "context-added", context_id: "context:C/2" }], [{ type: "context-added", context_id: "context:C" }]),
      place("context/destroy", "writer create-context/2", "outsider", [{ type: "context-added", context_id: "context:C/2" }], [{ type: "context-added", context_id: "context:C" }]),
      place("context/destroy", "late hello", "late", [{ type: "context-added", context_id: "context:C/2" }], [{ type: "context-added", context_id: "context:C" }]),
      place("context/create-again", "writer create-context/2", "writer", [{ type: "context-added", context_id: "context:C/2" }, { type: "context-created", context_id: "context:C/2" }], [{ type: "context-added", context_id: "context:C" }, { type: "context-created", context_id: "context:C" }]),
      place("context/create-again", "writer create-context/2", "member", [{ type: "context-added", context_id: "context:C/2" }], [{ type: "context-added", context_id: "context:C" }]),
      place("context/create-again", "member update-context", "member", [{ type: "error", reason_uri: "global.errors.failure" }], [{ type: "success" }]),
      place("context/create-again", "member update-context", "writer", [], [{ type: "context-updated", context_id: "context:C" }]),
      place("context/create-again", "member subscribe-context/2", "member", [{ type: "subscribed-context", context_id: "context:C/2", holds: { second: 1 } }], [{ type: "subscribed-context", context_id: "context:C", holds: { second: 1, stale: 1 } }]),
      place("context/create-again", "writer update-context", "writer", [{ type: "success", holds: { second: 1, more: 1 } }], [{ type: "success", holds: { second: 1, stale: 1, more: 1 } }]),
      place("context/create-again", "writer update-context", "member", [{ type: "context-updated", context_id: "context:C/2", holds: { second: 1, more: 1 } }], [{ type: "context-updated", context_id: "context:C", holds: { second: 1, stale: 1, more: 1 } }]),
    ],
  },
  {
    id: "context-domain",
    reference: "peers of domain context are announced to each other, and pushes have the domain of who acts",
    weft: "they are not announced, and pushes have the domain of who receives them",
    places: [
      place("join/context", "a join", "a", [{ type: "peer-added", new_peer_id: "peer:b" }], []),
      place("join/context", "b join", "b", [{ type: "peer-added", new_peer_id: "peer:a" }], []),
      place("join/context", "a leave", "a", [{ type: "peer-removed", removed_id: "peer:b" }], []),
      place("join/context", "a leave", "b", [{ type: "peer-removed", removed_id: "peer:a" }], []),
      place("context/domain", "b hello", "a", [{ type: "peer-added", new_peer_id: "peer:b" }], []),
      place("context/domain", "b join", "b", [{ type: "peer-added", new_peer_id: "peer:a" }], []),
      place("context/domain", "g hello", "a", [{ type: "peer-added", new_peer_id: "peer:g" }], []),
      place("context/domain", "g hello", "b", [{ type: "peer-added", new_peer_id: "peer:g" }], []),
      place("context/domain", "a destroy-context", "g", [{ type: "context-destroyed", domain: "context", reason_uri: "context.destroyed" }], [{ type: "context-destroyed", domain: "global", reason_uri: "global.destroyed" }]),
      place("context/domain-leave", "b hello", "a", [{ type: "peer-added", new_peer_id: "peer:b" }], []),
      place("context/domain-leave", "b join", "b", [{ type: "peer-added", new_peer_id: "peer:a" }], []),
      place("context/domain-leave", "a leave", "a", [{ type: "peer-removed", removed_id: "peer:b" }], []),
      place("context/domain-leave", "a leave", "b", [{ type: "context-destroyed", context_id: "context:Own" }, { type: "peer-removed", removed_id: "peer:a" }], []),
    ],
  },
  {
    id: "lists-replace",
    reference: "an updated list and an object are merged, or fail",
    weft: "the new value replaces the old",
    places: [
      place("delta/updated-list-to-object", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { o: [1, 2, { a: 1 }] } }], [{ type: "subscribed-context", holds: { o: { a: 1 } } }]),
      place("delta/updated-object-to-list", "writer update-context", "writer", [{ type: "error", reason_uri: "global.errors.failure" }], [{ type: "success", holds: { o: [9] } }]),
      place("delta/updated-object-to-list", "writer update-context", "member", [], [{ type: "context-updated", context_id: "context:C0" }]),
      place("delta/updated-object-to-list", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { o: { a: 1 } } }], [{ type: "subscribed-context", holds: { o: [9] } }]),
    ],
  },
  {
    id: "whole-path",
    reference: "the empty path is the whole for the gateway, and a key for clients, to whom it is forwarded",
    weft: "it is the whole, for everybody",
    places: [
      place("delta/set-empty-path", "writer update-context", "member", [{ type: "context-updated", holds: { a: 1, "": { whole: 1 } } }], [{ type: "context-updated", holds: { whole: 1 } }]),
      place("delta/remove-empty-path", "writer update-context", "member", [{ type: "context-updated", holds: { a: 1 } }], [{ type: "context-updated", holds: {} }]),
    ],
  },
  {
    id: "empty-key",
    reference: "a path that ends in a dot ends before it, but for clients",
    weft: "it ends in the empty key",
    places: [
      place("delta/set-empty-segment", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: 1 } }], [{ type: "subscribed-context", holds: { a: { "": 1, k: 1 } } }]),
    ],
  },
  {
    id: "mixed-delta",
    reference: "all members of a delta count, while clients do not look at others beside reset or commands",
    weft: "reset counts alone, or commands alone, or added, updated and removed in this order, as in clients",
    places: [
      place("delta/mixed-commands", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { b: 1, c: 1 } }], [{ type: "subscribed-context", holds: { a: 1, b: 1 } }]),
      place("delta/mixed-reset", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { r: 1, z: 1 } }], [{ type: "subscribed-context", holds: { r: 1 } }]),
      place("delta/mixed-removed-added", "reader subscribe-context", "reader", [{ type: "subscribed-context", holds: { a: 2 } }], [{ type: "subscribed-context", holds: {} }]),
    ],
  },
  {
    id: "literal-topics",
    reference: "what means something in regular expressions does so in topics with * or >",
    weft: "it is literal",
    places: [
      place("bus/pattern-characters", "speaker publish", "listener", [], [{ type: "event", subscription_id: "subscription#1" }]),
      place("bus/pattern-characters", "speaker publish/2", "listener", [{ type: "event", subscription_id: "subscription#1" }], []),
      place("bus/pattern-characters", "speaker publish/3", "listener", [], [{ type: "event", subscription_id: "subscription#2" }]),
      place("bus/pattern-characters", "speaker publish/4", "listener", [{ type: "event", subscription_id: "subscription#3" }], []),
      place("bus/pattern-characters", "speaker publish/5", "listener", [], [{ type: "event", subscription_id: "subscription#3" }]),
      place("bus/pattern-characters", "speaker publish/6", "listener", [], [{ type: "event", subscription_id: "subscription#4" }]),
      place("bus/pattern-characters", "speaker publish/7", "listener", [], [{ type: "event", subscription_id: "subscription#5" }]),
    ],
  },
  {
    id: "peer-left",
    reference: "a context that ends with an unsubscribe ends with global.peer-left",
    weft: "others hear context.peer-left, or global.destroyed of an owner that goes on",
    places: [
      ...["member", "outsider", "late"].map((c) =>
        place("context/ownership", "writer unsubscribe-context", c, [{ type: "context-destroyed", reason_uri: "global.peer-left" }], [{ type: "context-destroyed", reason_uri: "global.destroyed" }])),
      ...["writer", "outsider"].map((c) =>
        place("context/ref-counted", "member unsubscribe-context", c, [{ type: "context-destroyed", reason_uri: "global.peer-left" }], [{ type: "context-destroyed", reason_uri: "context.peer-left" }])),
    ],
  },
  {
    id: "own-snapshot",
    reference: "a snapshot has what came before its request",
    weft: "it also has what its client has sent since, and comes after the answers to what it has sent before",
    places: [
      place("context/pipeline", "member update-context+subscribe-context+update-context+subscribe-context", "member", [{ type: "subscribed-context", request_id: "member4" }], []),
      place("context/pipeline", "member update-context+subscribe-context+update-context+subscribe-context", "member", [], [{ type: "subscribed-context", request_id: "member4" }]),
    ],
  },
  {
    id: "hidden-context",
    reference: "who may not read a context is told so, and may update it if that is not forbidden",
    weft: "there is no such context for it",
    places: [
      place("permission/read", "b subscribe-context", "b", [{ type: "error", reason_uri: "global.errors.not_authorized" }], [{ type: "error", reason: "Unable to find context with id context:C" }]),
      place("permission/read", "b update-context", "a", [{ type: "context-updated", updater_id: "peer:b" }], []),
      place("permission/read", "b update-context", "b", [{ type: "success" }], [{ type: "error", reason: "Unable to find context with id context:C" }]),
      place("permission/read", "b update-context", "c", [{ type: "context-updated", updater_id: "peer:b" }], []),
      place("permission/both", "c subscribe-context", "c", [{ type: "error", reason_uri: "global.errors.not_authorized" }], [{ type: "error", reason: "Unable to find context with id context:C" }]),
      place("permission/both", "c update-context", "c", [{ type: "error", reason_uri: "global.errors.not_authorized" }], [{ type: "error", reason: "Unable to find context with id context:C" }]),
    ],
  },
  {
    id: "hidden-peer",
    reference: "a call to a peer that hides itself is refused",
    weft: "there is no such peer",
    places: [
      place("restriction/join", "b call", "b", [{ type: "error", reason_uri: "agm.errors.invocation.failure" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
      place("restriction/join", "hidden call", "hidden", [{ type: "error", reason_uri: "agm.errors.invocation.failure" }], [{ type: "error", reason_uri: "agm.errors.failure" }]),
    ],
  },
];
