package main

import (
	"github.com/weft-fabric/weft/node/channels"
	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/node/interop"
	"github.com/weft-fabric/weft/node/topics"
)

// What package node does not name itself.
const (
	streamSubscribed = interop.Subscribed
	streamData       = interop.Data
	streamGap        = interop.Gap
	streamClosed     = interop.Closed

	// channelPrefix is what the names of the contexts of channels begin with.
	channelPrefix = channels.Prefix

	topicLost = topics.Lost
)

type (
	contextOption = contexts.Option
	contextWriter = contexts.Writer
	contextKind   = contexts.Kind
	channelKind   = channels.Kind
)

var (
	routingKey   = topics.RoutingKey
	routingKeyIs = topics.RoutingKeyIs
)
