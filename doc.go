// Package weft is the root of Weft, a fabric over which the apps of a trading
// desk share data although they run on different machines. A thin node runs
// on each desktop; nodes meet on NATS.
//
// An app gets five services from its node: methods it can offer and call,
// streams it can publish and subscribe to, contexts (named objects that many
// apps edit at once), channels (contexts that people choose by colour) and
// topics (publish and subscribe). What stays on one desktop does not touch
// the network and works without it.
//
// The root has no code. A Go program starts at
// [github.com/weft-fabric/weft/node], which runs a node and connects apps to
// it; other programs speak to the node's local WebSocket, served by
// [github.com/weft-fabric/weft/gateway], or to NATS itself, whose subjects are
// spelled out in [github.com/weft-fabric/weft/subjects]. ARCHITECTURE.md says
// which folder does what and who may import whom.
package weft
