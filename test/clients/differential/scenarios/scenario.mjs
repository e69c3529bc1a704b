// What scenarios are made of.

/**
 * scenario is one play: a function that gets a Stage. unordered lists what comes in
 * no promised order in it.
 */
export const scenario = (name, about, play, { unordered = [] } = {}) => ({ name, about, play, unordered });

/** Orders that the protocol does not promise: about tells of what a frame is, or nothing. */
export const peersInAnyOrder = {
  why: "a join announces the peers that are there in the order of a set",
  about: (m) => ({ "peer-added": m.new_peer_id, "methods-added": m.server_id, "peer-removed": m.removed_id })[m.type],
};
export const subscriptionsInAnyOrder = {
  why: "the subscriptions that a message goes to, or that end together, are a set",
  about: (m) => ({ event: m.subscription_id, "subscription-cancelled": m.subscription_id, "remove-interest": m.subscription_id })[m.type],
};
export const endingsInAnyOrder = {
  why: "the calls and subscriptions that end together are a set",
  about: (m) => (["error", "subscription-cancelled", "remove-interest"].includes(m.type) ? String(m.subscription_id ?? m.request_id) : undefined),
};
export const contextsInAnyOrder = {
  why: "the contexts that are announced at hello, or that end together, are a set",
  about: (m) => ({ "context-added": m.context_id, "context-destroyed": m.context_id })[m.type],
};

/** method is a definition like the clients send. */
export const method = (id, name, more) => ({ id, name, flags: {}, ...more });

/** feed is the definition of a stream. */
export const feed = (id, name, more) => method(id, name, { flags: { streaming: true }, ...more });
