package contexts

import "github.com/weft-fabric/weft/subjects"

// MustExist refuses a write with bad-name where there is no context, or none any
// more when the write's turn comes, instead of creating one.
func MustExist() Option { return func(o *op) { o.mustExist = true } }

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

// MetaOf is the metadata of a context that exists, as far as this node knows the
// list of contexts. It does not wait.
func (a *App) MetaOf(name string) (Meta, bool) {
	token, err := subjects.Encode(name)
	if err != nil {
		return Meta{}, false
	}
	n, err := a.c.follow()
	if err != nil {
		return Meta{}, false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	x, ok := n.find(token)
	return x.meta.value(), ok
}
