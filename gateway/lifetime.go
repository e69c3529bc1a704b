package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/weft-fabric/weft/kv"
)

func (x *contexts) exists(name string) bool {
	ctx, cancel := context.WithTimeout(x.p.ctx, time.Second)
	defer cancel()
	list, _ := x.app.Names(ctx)
	return slices.Contains(list, name)
}

func (x *contexts) hold(name string)                     {}
func (x *contexts) release(name string)                  {}
func (x *contexts) releaseThen(name string, then func()) { then() }
func (x *contexts) at(context.Context, string, uint64) (*kv.Value, bool, error) {
	return nil, false, nil
}
func (c *shared) changedSince(uint64, []string) bool { return false }
