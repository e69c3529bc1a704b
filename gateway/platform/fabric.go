package platform

import (
	"context"
	"encoding/json"
	"iter"
	"time"
)

// Fabric is whether the node reaches the others, as the method Weft.GetFabric answers and
// the stream Weft.Fabric pushes: at once, and whenever it changes.
type Fabric struct {
	// Fabric is online or offline, Since since when, and Reason why it is offline.
	Fabric string    `json:"fabric"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
}

func (p *Platform) getFabric(_ context.Context, _ Caller, args json.RawMessage) (any, error) {
	if err := decode(args, &struct{}{}); err != nil {
		return nil, err
	}
	return p.host.Fabric(), nil
}

// followFabric pushes the state and then its changes until the subscriber goes.
func (p *Platform) followFabric(c Caller, _ json.RawMessage, push func(json.RawMessage)) (cancel func(), err error) {
	ctx, cancel := context.WithCancel(p.ctx)
	last := p.host.Fabric()
	text, err := encode(last)
	if err != nil {
		cancel()
		return nil, err
	}
	push(text)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fabrics[c.Peer] = append(p.fabrics[c.Peer], cancel)
	p.start(func() {
		for f := range p.host.Fabrics(ctx) {
			if f == last {
				continue
			}
			last = f
			if text, err := encode(f); err == nil && ctx.Err() == nil {
				push(text)
			}
		}
	})
	return cancel, nil
}

// states is the part of [Host] that is about the fabric.
type states interface {
	// Fabric is the node's state, and Fabrics yields it and then each change until
	// ctx ends.
	Fabric() Fabric
	Fabrics(ctx context.Context) iter.Seq[Fabric]
}
