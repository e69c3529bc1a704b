package interop

import "sync/atomic"

// Stats counts since the start. The names are those of the log and the
// command line.
type Stats struct {
	Calls         uint64 `json:"calls"`          // made by local apps
	CallsFailed   uint64 `json:"calls_failed"`   // outcomes other than a result
	CallsServed   uint64 `json:"calls_served"`   // run by local apps
	Pushed        uint64 `json:"pushed"`         // stream messages sent by local apps, per branch
	Delivered     uint64 `json:"delivered"`      // stream messages handed to local subscriptions
	Gaps          uint64 `json:"gaps"`           // gap notices handed to local subscriptions
	Refused       uint64 `json:"refused"`        // messages that were not Weft's or broke its rules
	Apps          int    `json:"apps"`           // local apps
	Streams       int    `json:"streams"`        // local streams
	Subscribers   int    `json:"subscribers"`    // subscriptions of other nodes to local streams
	Subscriptions int    `json:"subscriptions"`  // subscriptions of local apps to streams of other nodes
	Branches      int    `json:"branches_heard"` // branches of other nodes that this node listens to
}

type counters struct {
	calls, failed, served, pushed, delivered, gaps, refused atomic.Uint64
}

// Stats returns the counters.
func (x *Interop) Stats() Stats {
	s := Stats{
		Calls: x.stats.calls.Load(), CallsFailed: x.stats.failed.Load(), CallsServed: x.stats.served.Load(),
		Pushed: x.stats.pushed.Load(), Delivered: x.stats.delivered.Load(), Gaps: x.stats.gaps.Load(), Refused: x.stats.refused.Load(),
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	s.Apps, s.Subscribers, s.Subscriptions, s.Branches = len(x.apps), len(x.pubs), len(x.legs), len(x.feeds)
	for _, a := range x.apps {
		a.mu.Lock()
		for _, m := range a.methods {
			if m.stream != nil {
				s.Streams++
			}
		}
		a.mu.Unlock()
	}
	return s
}
