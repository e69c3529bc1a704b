// The requests of the protocol by their names, as methods of a client. More fields,
// or others, go into the last argument; a field that is undefined is not sent.

const ask = (domain, type, fields) => ({ domain, type, ...fields });

export const verbs = {
  // global
  hello: (client, { login = "u1", ...more } = {}) => client.send(ask("global", "hello", { identity: { application: client.name }, authentication: { method: "secret", login, secret: "s" }, ...more })),
  join: (client, destination, more) => client.send(ask("global", "join", { destination, ...more })),
  leave: (client, destination, more) => client.send(ask("global", "leave", { destination, ...more })),
  createToken: (client, more) => client.send(ask("global", "create-token", more)),

  // agm
  register: (client, methods, more) => client.send(ask("agm", "register", { methods, ...more })),
  unregister: (client, methods, more) => client.send(ask("agm", "unregister", { methods, ...more })),
  call: (client, server, method_id, more) => client.send(ask("agm", "call", { server_id: server?.peer, method_id, ...more })),
  yield: (client, invocation_id, more) => client.send(ask("agm", "yield", { invocation_id, ...more })),
  fail: (client, request_id, more) => client.send(ask("agm", "error", { request_id, reason_uri: "agm.errors.client_error", reason: "no", ...more })),
  subscribe: (client, server, method_id, more) => client.send(ask("agm", "subscribe", { server_id: server?.peer, method_id, ...more })),
  accept: (client, subscription_id, stream_id, more) => client.send(ask("agm", "accepted", { subscription_id, stream_id, ...more })),
  push: (client, stream_id, data, more) => client.send(ask("agm", "publish", { stream_id, data, ...more })),
  post: (client, subscription_id, data, more) => client.send(ask("agm", "post", { subscription_id, data, ...more })),
  drop: (client, subscription_id, more) => client.send(ask("agm", "drop-subscription", { subscription_id, reason: "dropped", ...more })),
  unsubscribe: (client, subscription_id, more) => client.send(ask("agm", "unsubscribe", { subscription_id, reason_uri: "", reason: "ClientInitiated", ...more })),

  // contexts, in domain global like the shipped clients
  create: (client, name, data, more) => client.send(ask("global", "create-context", { name: client.stage.own(name), data, lifetime: "retained", ...more })),
  member: (client, context_id, more) => client.send(ask("global", "subscribe-context", { context_id, ...more })),
  noMember: (client, context_id, more) => client.send(ask("global", "unsubscribe-context", { context_id, ...more })),
  update: (client, context_id, delta, more) => client.send(ask("global", "update-context", { context_id, delta, ...more })),
  destroy: (client, context_id, more) => client.send(ask("global", "destroy-context", { context_id, ...more })),

  // bus
  listen: (client, topic, more) => client.send(ask("bus", "subscribe", { topic, ...more })),
  say: (client, topic, data, more) => client.send(ask("bus", "publish", { topic, data, ...more })),
  deaf: (client, subscription_id, more) => client.send(ask("bus", "unsubscribe", { subscription_id, ...more })),
};

for (const [name, verb] of Object.entries(verbs)) {
  verbs[name] = function (...args) {
    return verb(this, ...args);
  };
}
