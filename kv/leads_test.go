package kv

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/wire"
)

func TestLeads(t *testing.T) {
	peer := func(active time.Duration, current, offline bool) *jetstream.PeerInfo {
		return &jetstream.PeerInfo{Active: active, Current: current, Offline: offline}
	}
	near, far := peer(time.Second, true, false), peer(3*time.Second, true, false)
	for name, tt := range map[string]struct {
		cluster *jetstream.ClusterInfo
		leads   bool
	}{
		"alone by design":     {nil, true},
		"one replica":         {&jetstream.ClusterInfo{}, true},
		"all near":            {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{near, near}}, true},
		"one far":             {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{near, far}}, true},
		"both far":            {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{far, far}}, false},
		"one offline":         {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{far, peer(time.Second, true, true)}}, false},
		"never heard of":      {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{peer(0, false, false), far}}, false},
		"heard of right now":  {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{peer(0, true, false), far}}, true},
		"two of five are far": {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{near, near, far, far}}, true},
		"three of five":       {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{near, far, far, far}}, false},
		"half of four":        {&jetstream.ClusterInfo{Replicas: []*jetstream.PeerInfo{near, far, far}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := leads(&jetstream.StreamInfo{Cluster: tt.cluster})
			if (err == nil) != tt.leads || err != nil && !errors.Is(err, wire.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}
