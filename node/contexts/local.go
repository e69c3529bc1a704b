package contexts

import (
	"maps"
	"sync"

	"github.com/weft-fabric/weft/subjects"
)

// locals are the contexts of which something is kept: whether they exist is, for the
// apps of this node, not what the stream says.
type locals struct {
	mu      sync.Mutex
	list    map[subjects.Token]local
	changed func() // tells the list of names
}

// local is such a context as local apps see it.
type local struct {
	name   string
	exists bool
	by     Writer
	meta   *Meta
}

func (l *locals) tell(changed func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = changed
}

func (l *locals) set(token subjects.Token, x local) {
	l.mu.Lock()
	old, had := l.list[token]
	l.list[token] = x
	changed := l.changed
	l.mu.Unlock()
	if changed != nil && (!had || old.exists != x.exists) {
		changed()
	}
}

func (l *locals) forget(token subjects.Token) {
	l.mu.Lock()
	_, had := l.list[token]
	delete(l.list, token)
	changed := l.changed
	l.mu.Unlock()
	if changed != nil && had {
		changed()
	}
}

func (l *locals) get(token subjects.Token) (local, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, ok := l.list[token]
	return x, ok
}

func (l *locals) all() map[subjects.Token]local {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return nil
	}
	return maps.Clone(l.list)
}
