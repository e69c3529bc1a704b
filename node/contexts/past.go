package contexts

import (
	"context"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// Exists says whether there is a context of this name, as far as this node knows
// the list of contexts. It does not wait.
func (a *App) Exists(name string) bool {
	token, err := subjects.Encode(name)
	if err != nil {
		return false
	}
	n, err := a.c.follow()
	return err == nil && n.has(token)
}

// At is the object of a context as it was at a revision, from what the bucket still
// holds; false if that is not enough. nil and true is that there was no context.
func (a *App) At(ctx context.Context, name string, revision uint64) (*kv.Value, bool, error) {
	token, err := subjects.Encode(name)
	if err != nil {
		return nil, false, wire.Errorf(wire.BadName, "context: %w", err)
	}
	if err := a.c.online(); err != nil {
		return nil, false, err
	}
	t, ok, err := a.c.bucket.Past(ctx, token, revision)
	if err != nil {
		return nil, false, wire.AsError(err)
	}
	if !ok {
		return nil, false, nil
	}
	return t.View(), true, nil
}

// ChangedSince says whether something at, above or below a path was written after a
// revision, as far as this node knows. It does not wait.
func (a *App) ChangedSince(name string, revision uint64, path []string) bool {
	s, err := a.c.get(name)
	if err != nil {
		return false
	}
	defer a.c.release(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree.Changed([]kv.Edit{{Path: path}}, revision)
}
