package platform

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
)

// runningApps are the running apps by instance. The caller is one of them in any
// case: a client that finds its application there waits for its own instance.
func (p *Platform) runningApps(c Caller) map[string]App {
	apps := map[string]App{}
	for _, a := range p.host.Apps() {
		if a.Application != "" && a.Instance != "" {
			apps[a.Instance] = a
		}
	}
	if _, there := apps[c.Instance]; !there && c.Application != "" && c.Instance != "" {
		apps[c.Instance] = App{Peer: c.Peer, Application: c.Application, Instance: c.Instance, Local: true}
	}
	return apps
}

// application is an application as T42.ACS tells of it.
type application struct {
	Name          string
	Title         string
	IsReady       bool
	AllowMultiple bool
}

// definition is an application as the newer arguments of GetApplications have it.
// Intents are those that starting the application would serve; clients find those
// of running apps by their methods.
type definition struct {
	Name    string     `json:"name"`
	Title   string     `json:"title"`
	Intents []struct{} `json:"intents"`
}

// instance is a running app as T42.ACS tells of it.
type instance struct {
	ID         string `json:"Id"`
	Name       string
	Title      string
	Context    struct{}
	AgmServers []server
}

// server is what finds the instance's peer.
type server struct {
	Application string `json:"application"`
	Instance    string `json:"instance"`
}

// title is what the application is called for people.
func (a App) title() string { return cmp.Or(a.ApplicationName, a.Application) }

// applications are the applications of running apps.
func applications(apps map[string]App) map[string]application {
	list := map[string]application{}
	for _, id := range slices.Sorted(maps.Keys(apps)) {
		a := apps[id]
		if _, there := list[a.Application]; !there {
			list[a.Application] = application{Name: a.Application, Title: a.title(), IsReady: true, AllowMultiple: true}
		}
	}
	return list
}

func instances(apps map[string]App) map[string]instance {
	list := make(map[string]instance, len(apps))
	for id, a := range apps {
		list[id] = instance{ID: id, Name: a.Application, Title: a.title(), AgmServers: []server{{a.Application, id}}}
	}
	return list
}

// getApplications is T42.ACS.GetApplications. Weft knows no applications but those
// of the running apps.
func (p *Platform) getApplications(_ context.Context, c Caller, args json.RawMessage) (any, error) {
	var a struct {
		WithIntentsInfo bool `json:"withIntentsInfo"`
		V2              *struct {
			Apps []string `json:"apps"`
		} `json:"v2"`
	}
	if err := decode(args, &a); err != nil {
		return nil, err
	}
	list := applications(p.runningApps(c))
	if !a.WithIntentsInfo && a.V2 == nil {
		return map[string]any{"applications": list, "configuration": struct{}{}}, nil
	}
	definitions := []definition{}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if a.V2 == nil || a.V2.Apps == nil || slices.Contains(a.V2.Apps, name) {
			definitions = append(definitions, definition{name, list[name].Title, []struct{}{}})
		}
	}
	return map[string]any{"applications": definitions}, nil
}

// appsEvent is what T42.ACS.OnEvent pushes.
type appsEvent struct {
	IsSnapshot bool                   `json:"isSnapshot,omitempty"`
	Added      map[string]application `json:"OnApplicationAdded,omitempty"`
	Removed    map[string]application `json:"OnApplicationRemoved,omitempty"`
	Started    map[string]instance    `json:"OnApplicationStarted,omitempty"`
	Stopped    map[string]instance    `json:"OnApplicationStopped,omitempty"`
}

// appsWatch is a subscription to T42.ACS.OnEvent.
type appsWatch struct {
	caller Caller
	push   func(json.RawMessage)

	mu    sync.Mutex
	known map[string]App // what the client was told of; nil when it has ended
}

// appEvents is T42.ACS.OnEvent: all running apps, and then who comes and goes.
func (p *Platform) appEvents(c Caller, _ json.RawMessage, push func(json.RawMessage)) (func(), error) {
	w := &appsWatch{caller: c, push: push, known: p.runningApps(c)}
	w.send(appsEvent{IsSnapshot: true, Added: applications(w.known), Started: instances(w.known)})
	p.mu.Lock()
	p.apps[w] = true
	p.mu.Unlock()
	p.AppsChanged() // somebody may have come meanwhile
	return func() { p.stopApps(w) }, nil
}

func (p *Platform) stopApps(w *appsWatch) {
	p.mu.Lock()
	delete(p.apps, w)
	p.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = nil
}

// AppsChanged tells the platform that Host.Apps may have changed.
func (p *Platform) AppsChanged() {
	select {
	case p.wake <- struct{}{}:
	default: // one look finds all changes
	}
}

// followApps tells the subscribers who came and went.
func (p *Platform) followApps() {
	for {
		select {
		case <-p.wake:
		case <-p.ctx.Done():
			return
		}
		p.mu.RLock()
		watches := slices.Collect(maps.Keys(p.apps))
		p.mu.RUnlock()
		for _, w := range watches {
			w.update(p.runningApps(w.caller))
		}
	}
}

// update tells the subscriber what is different now.
func (w *appsWatch) update(now map[string]App) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known == nil {
		return
	}
	for _, e := range changes(w.known, now) {
		w.send(e)
	}
	w.known = now
}

func (w *appsWatch) send(e appsEvent) {
	if text, err := encode(e); err == nil { // events can always be encoded
		w.push(text)
	}
}

// changes are what leads from one state to another. Within one event clients look
// at the removed applications before the instances that stopped, whose application
// must still be there: so these come first, by themselves.
func changes(from, to map[string]App) []appsEvent {
	gone, come := missing(from, to), missing(to, from)
	before, after := applications(from), applications(to)
	var list []appsEvent
	if len(gone) > 0 {
		list = append(list, appsEvent{Stopped: instances(gone)})
	}
	if removed := missingNames(before, after); len(removed) > 0 {
		list = append(list, appsEvent{Removed: removed})
	}
	if len(come) > 0 {
		list = append(list, appsEvent{Added: missingNames(after, before), Started: instances(come)})
	}
	return list
}

// missing are the apps of a that are not in b, or are other apps there.
func missing(a, b map[string]App) map[string]App {
	list := map[string]App{}
	for id, app := range a {
		if other, there := b[id]; !there || other.Application != app.Application {
			list[id] = app
		}
	}
	return list
}

func missingNames(a, b map[string]application) map[string]application {
	list := map[string]application{}
	for name, app := range a {
		if _, there := b[name]; !there {
			list[name] = app
		}
	}
	return list
}
