package platform

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"

	"github.com/weft-fabric/weft/wire"
)

// updateMethod is what clients register that have subscribed to preferences.
const updateMethod = "T42.Prefs.Update"

// prefsView is how clients see preferences.
type prefsView struct {
	App        string                     `json:"app"`
	Data       map[string]json.RawMessage `json:"data"`
	LastUpdate string                     `json:"lastUpdate,omitempty"`
}

// view makes a date of the time: that is how clients write dates in messages.
func (f prefsFile) view() prefsView {
	v := prefsView{App: f.App, Data: f.Data}
	if v.Data == nil {
		v.Data = map[string]json.RawMessage{}
	}
	if !f.Updated.IsZero() {
		v.LastUpdate = "#T42_DATE#" + strconv.FormatInt(f.Updated.UnixMilli(), 10)
	}
	return v
}

// getPrefs is T42.Prefs.Get: of one app, which may subscribe at the same time, or of
// all apps of the user.
func (p *Platform) getPrefs(_ context.Context, c Caller, args json.RawMessage) (any, error) {
	var a struct {
		App       string `json:"app"`
		Subscribe bool   `json:"subscribe"`
	}
	if err := decode(args, &a); err != nil {
		return nil, err
	}
	if a.App == "" {
		return p.allPrefs(c)
	}
	f, err := p.store.get(c.Login, a.App)
	if err != nil {
		return nil, err
	}
	if a.Subscribe {
		if err := p.watchPrefs(c, a.App); err != nil {
			return nil, err
		}
	}
	return f.view(), nil
}

func (p *Platform) allPrefs(c Caller) (any, error) {
	files, err := p.store.all(c.Login)
	if err != nil {
		return nil, err
	}
	list := []prefsView{}
	for _, f := range files {
		list = append(list, f.view())
	}
	return map[string]any{"all": list}, nil
}

// setPrefs is T42.Prefs.Set: it replaces preferences, merges new ones into them by
// their top-level keys, or clears them, those of all apps if none is named.
func (p *Platform) setPrefs(_ context.Context, c Caller, args json.RawMessage) (any, error) {
	var a struct {
		App   string          `json:"app"`
		Data  json.RawMessage `json:"data"`
		Merge bool            `json:"merge"`
		Clear bool            `json:"clear"`
	}
	if err := decode(args, &a); err != nil {
		return nil, err
	}
	var data map[string]json.RawMessage
	if err := decode(a.Data, &data); err != nil {
		return nil, err
	}
	var err error
	switch {
	case a.Clear && a.App == "":
		err = p.store.clearAll(c.Login)
	case a.Clear:
		err = p.store.clear(c.Login, a.App)
	case a.App == "":
		err = wire.Errorf(wire.BadPayload, "preferences need the name of their app")
	case data == nil:
		err = wire.Errorf(wire.BadPayload, "preferences need data, which is an object")
	default:
		err = p.store.set(c.Login, a.App, data, a.Merge)
	}
	if err != nil {
		return nil, err
	}
	p.prefsChanged(c.Login, a.App)
	return struct{}{}, nil
}

// prefsWatch is a session that has subscribed to preferences. Platform.mu guards it.
type prefsWatch struct {
	login string
	// apps are those whose preferences it follows. One that is true has changed
	// since the client was told.
	apps map[string]bool
	// telling says that there is a goroutine that tells the client.
	telling bool
}

// watchPrefs subscribes a session. It is told at once: clients expect the present
// preferences first.
func (p *Platform) watchPrefs(c Caller, app string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.prefs[c.Peer]
	if w == nil {
		w = &prefsWatch{login: c.Login, apps: map[string]bool{}}
		p.prefs[c.Peer] = w
	}
	if _, there := w.apps[app]; !there && len(w.apps) >= wire.MaxSubscriptions {
		return wire.Errorf(wire.Limit, "subscriptions to the preferences of %d apps, the limit is %d", len(w.apps), wire.MaxSubscriptions)
	}
	w.apps[app] = true
	p.tellPrefs(c.Peer, w)
	return nil
}

// prefsChanged tells the subscribers of preferences, of all apps if app is "".
func (p *Platform) prefsChanged(login, app string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for peer, w := range p.prefs {
		if w.login != login {
			continue
		}
		for name := range w.apps {
			if app == "" || name == app {
				w.apps[name] = true
				p.tellPrefs(peer, w)
			}
		}
	}
}

// tellPrefs has the client told. mu is held.
func (p *Platform) tellPrefs(peer string, w *prefsWatch) {
	if w.telling {
		return
	}
	w.telling = true
	p.start(func() {
		for {
			app, ok := p.nextPrefs(w)
			if !ok {
				return
			}
			f, err := p.store.get(w.login, app)
			if err == nil {
				_, err = p.invoke(p.ctx, peer, updateMethod, f.view())
			}
			if err != nil && p.ctx.Err() == nil {
				p.log.Debug("platform: a client was not told of preferences", slog.String("peer", peer), slog.String("app", app), slog.Any("error", err))
			}
		}
	})
}

// nextPrefs is an app whose preferences the client has not been told of.
func (p *Platform) nextPrefs(w *prefsWatch) (app string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for app, changed := range w.apps {
		if changed {
			w.apps[app] = false
			return app, true
		}
	}
	w.telling = false
	return "", false
}
