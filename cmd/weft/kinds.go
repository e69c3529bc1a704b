package main

import (
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/node/topics"
)

// What package node does not name itself.
const (
	streamSubscribed = interop.Subscribed
	streamData       = interop.Data
	streamGap        = interop.Gap
	streamClosed     = interop.Closed

	topicLost = topics.Lost
)

var (
	routingKey   = topics.RoutingKey
	routingKeyIs = topics.RoutingKeyIs
)
