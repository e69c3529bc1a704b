package directory

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// maxManifests is how many manifests an app may name; Weft writes one.
	maxManifests = 16
	// manifestTries is how often a manifest is asked for, manifestRetry apart, until the
	// next tick does so again.
	manifestTries = 3
	manifestRetry = time.Second
)

// snapshot applies a valid snapshot: what it holds, and what it lacks.
func (d *Directory) snapshot(s kv.Snapshot) {
	if !s.Created.Equal(d.created) {
		d.created, d.ownSeq, d.upTo = s.Created, 0, 0
		for _, p := range d.peers {
			p.seq = 0
		}
	}
	d.readAt = time.Now()
	for _, key := range slices.Sorted(maps.Keys(s.Entries)) {
		d.apply(s.Entries[key])
	}
	d.fetchMissing()
	for id, p := range d.peers {
		e, ok := s.Entries[subjects.NodeKey(id)]
		if p.doc != nil && p.seq <= s.UpTo && (!ok || e.Op != kv.Put) {
			p.purged = true
			d.suspect(id, "missing from the directory", flapGrace)
		}
	}
}

// apply takes one write of the bucket.
func (d *Directory) apply(e kv.Entry) {
	id, ok := e.Key.Node()
	if !ok || e.Key != subjects.NodeKey(id) { // a lease is no document
		return
	}
	d.upTo = max(d.upTo, e.Seq)
	if id == d.cfg.Self {
		d.own(id, e)
		return
	}
	p := d.peers[id]
	if p == nil {
		p = &peer{}
		d.peers[id] = p
	}
	if e.Seq <= p.seq {
		return
	}
	switch {
	case e.Op == kv.Put:
		if e.Scheduler != "" {
			d.ignore(id, "a document written by a schedule")
			return
		}
		p.seq = e.Seq
		doc, err := d.parse(id, e.Value)
		if err != nil {
			d.ignore(id, err.Error())
			return
		}
		p.spoken()
		p.doc, p.purged, p.lost = doc, false, false
		d.show(id, p)
	case e.Scheduler != "" && e.Scheduler != subjects.LeaseKey(id):
		d.ignore(id, "purged by the schedule of "+string(e.Scheduler))
	case e.Scheduler != "" || e.Expired:
		p.seq, p.purged = e.Seq, true
		if p.lost {
			p.doc = nil
		}
		d.suspect(id, "lease lapsed", 0)
	default:
		p.seq = e.Seq
		p.spoken()
		p.doc = nil
		d.remove(id, "left")
	}
}

// own reacts to a write of this node's own document.
func (d *Directory) own(id subjects.Node, e kv.Entry) {
	if e.Seq <= d.ownSeq {
		return
	}
	var doc wire.NodeDoc
	err := wire.Unmarshal(e.Value, &doc)
	switch {
	case e.Op != kv.Put:
		// Purged by our lease after a freeze or because the server's clock was
		// set, or by an operator: we are here.
		d.bucket.ForgetTime()
		d.unsettle()
		return
	case err != nil || doc.Boot == "" || e.Scheduler != "":
		d.ignore(id, "this node's own, written by somebody else")
		d.unsettle()
		return
	case doc.Boot == d.cfg.Boot:
		return
	}
	d.log.Error("another node writes this node's document: stop one of them or give it another --node", slog.String("node", string(d.cfg.Self)), slog.String("boot", doc.Boot))
	d.rogue.Add(1)
}

func (d *Directory) ignore(id subjects.Node, why string) {
	d.rogue.Add(1)
	d.log.Warn("directory entry ignored", slog.String("node", string(id)), slog.String("reason", why))
}

// parse reads a document and refuses what its node may not claim.
func (d *Directory) parse(id subjects.Node, data []byte) (*wire.NodeDoc, error) {
	var doc wire.NodeDoc
	if err := wire.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	switch {
	case doc.V > wire.DocVersion:
		return nil, wire.Errorf(wire.Version, "document version %d, this node reads up to %d", doc.V, wire.DocVersion)
	case doc.Node != string(id):
		return nil, wire.Errorf(wire.BadPayload, "document of node %q under another key", doc.Node)
	case doc.Boot == "" || doc.Boot == d.cfg.Boot:
		return nil, wire.Errorf(wire.BadPayload, "boot id %q", doc.Boot)
	case len(doc.Apps) > wire.MaxApps:
		return nil, wire.Errorf(wire.Limit, "apps of node %s: %d, the limit is %d", id, len(doc.Apps), wire.MaxApps)
	}
	if other := d.View().boots[doc.Boot]; other != nil && other.ID != id {
		return nil, wire.Errorf(wire.BadPayload, "boot %s is node %s", doc.Boot, other.ID)
	}
	seen := make(map[subjects.App]bool, len(doc.Apps))
	for i := range doc.Apps {
		a := &doc.Apps[i].Identity
		app, err := subjects.ParseApp(a.App)
		switch {
		case err != nil || app.Boot() != doc.Boot:
			return nil, wire.Errorf(wire.BadPayload, "app id %q is not of boot %s", a.App, doc.Boot)
		case seen[app]:
			return nil, wire.Errorf(wire.BadPayload, "app id %q twice", a.App)
		case len(doc.Apps[i].Manifests) > maxManifests:
			return nil, wire.Errorf(wire.Limit, "manifests of app %s: %d, the limit is %d", app, len(doc.Apps[i].Manifests), maxManifests)
		}
		if err := checkApp(app, &doc.Apps[i]); err != nil {
			return nil, err
		}
		seen[app] = true
		a.Node, a.OSUser, a.Machine = doc.Node, doc.User, doc.Machine
		if doc.Apps[i].Domains == nil { // no gateway client: nothing of it is a login
			a.User = doc.User
		}
	}
	return &doc, nil
}

// show puts a peer into the view, as far as its manifests are known.
func (d *Directory) show(id subjects.Node, p *peer) {
	doc := p.doc
	n := &Node{
		ID: id, Boot: doc.Boot, Machine: doc.Machine, Host: doc.Host, User: doc.User, Version: doc.Version,
		Hidden: doc.Hidden, Suspect: p.ask != nil, ClockOffset: time.Duration(doc.ClockOffset) * time.Millisecond,
		apps: make(map[subjects.App]*App, len(doc.Apps)),
	}
	old := d.View().Nodes[id]
	for i := range doc.Apps {
		a, whole := d.app(id, doc, &doc.Apps[i])
		if !whole && old != nil && old.apps[a.ID] != nil {
			a.Methods = old.apps[a.ID].Methods // until the new ones are here
		}
		if old != nil && old.apps[a.ID] != nil && sameApp(old.apps[a.ID], a) {
			a = old.apps[a.ID]
		}
		n.Apps = append(n.Apps, a)
		n.apps[a.ID] = a
	}
	d.mu.Lock()
	if old != nil && old.Boot != n.Boot {
		d.reasons[id] = "lost" // and is back already
	}
	d.replace(n)
	d.mu.Unlock()
}

// app is an app of a document, and whether all its methods are known.
func (d *Directory) app(id subjects.Node, doc *wire.NodeDoc, ad *wire.AppDoc) (a *App, whole bool) {
	whole = true
	a = &App{ID: subjects.App(ad.Identity.App), Identity: ad.Identity, Node: id, SameMachine: doc.Machine == d.cfg.Machine, Channels: ad.Channels, Domains: ad.Domains, Holds: ad.Holds}
	for _, hash := range ad.Manifests {
		m := d.manifests[hash]
		if m == nil {
			d.fetch(id, hash)
			whole = false
			continue
		}
		for i := range m.Methods {
			a.Methods = append(a.Methods, &m.Methods[i])
		}
	}
	return a, whole
}

func sameApp(a, b *App) bool {
	return a.Identity == b.Identity && a.SameMachine == b.SameMachine && slices.Equal(a.Methods, b.Methods) && slices.Equal(a.Channels, b.Channels) &&
		maps.Equal(a.Domains, b.Domains) && slices.Equal(a.Holds, b.Holds)
}

// fetch reads a manifest once, from the bucket or else from its node, and then
// shows every node that names it.
func (d *Directory) fetch(from subjects.Node, hash string) {
	if d.fetching[hash] || d.epoch.Err() != nil {
		return
	}
	d.fetching[hash] = true
	epoch := d.epoch
	d.wg.Go(func() {
		m, err := d.manifest(epoch, from, hash)
		d.post(func() {
			delete(d.fetching, hash)
			if err != nil {
				if epoch.Err() == nil { // or else the next snapshot sees to it
					d.log.Warn("manifest not available", slog.String("node", string(from)), slog.String("manifest", hash), slog.Any("error", err))
				}
				return
			}
			d.prune()
			d.manifests[hash] = m
			for id, p := range d.peers {
				if p.doc != nil && !p.lost && slices.ContainsFunc(p.doc.Apps, func(a wire.AppDoc) bool { return slices.Contains(a.Manifests, hash) }) {
					d.show(id, p)
				}
			}
		})
	})
}

// fetchMissing tries again to get what could not be had.
func (d *Directory) fetchMissing() {
	for id, p := range d.peers {
		if p.doc == nil || p.lost {
			continue
		}
		for _, a := range p.doc.Apps {
			for _, hash := range a.Manifests {
				if d.manifests[hash] == nil {
					d.fetch(id, hash)
				}
			}
		}
	}
}

// manifest reads a manifest, and again if it cannot be had: an answer may be late, and who
// waits for a method should not wait for the next tick.
func (d *Directory) manifest(ctx context.Context, from subjects.Node, hash string) (m *wire.Manifest, err error) {
	for try := 1; ; try++ {
		if m, err = d.readManifest(ctx, from, hash); err == nil || try == manifestTries {
			return m, err
		}
		select {
		case <-time.After(manifestRetry):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (d *Directory) readManifest(ctx context.Context, from subjects.Node, hash string) (*wire.Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	key, err := subjects.ManifestKey(hash)
	if err != nil {
		return nil, err
	}
	e, ok, err := d.bucket.Get(ctx, key)
	data := e.Value
	if err != nil || !ok || hashOf(data) != hash {
		if data, err = d.askManifest(ctx, from, hash); err != nil {
			return nil, err
		}
	}
	if hashOf(data) != hash {
		return nil, wire.Errorf(wire.BadPayload, "manifest %s has other bytes", hash)
	}
	var m wire.Manifest
	if err := wire.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	if len(m.Methods) > wire.MaxMethods {
		return nil, wire.Errorf(wire.Limit, "methods in manifest %s: %d, the limit is %d", hash, len(m.Methods), wire.MaxMethods)
	}
	seen := make(map[string]bool, len(m.Methods))
	for i := range m.Methods {
		if _, err := subjects.Encode(m.Methods[i].Name); err != nil {
			return nil, err
		}
		key := strings.ToLower(m.Methods[i].Name)
		if seen[key] {
			return nil, wire.Errorf(wire.BadPayload, "method %q twice in manifest %s", m.Methods[i].Name, hash)
		}
		seen[key] = true
	}
	return &m, nil
}

func (d *Directory) askManifest(ctx context.Context, from subjects.Node, hash string) ([]byte, error) {
	body, err := wire.Marshal(wire.InfoRequest{Manifest: hash})
	if err != nil {
		return nil, err
	}
	m, err := d.cfg.Link.Request(ctx, &nats.Msg{Subject: string(d.cfg.Realm.CtlSubject(from, d.cfg.Self, subjects.VerbInfo)), Data: body})
	if err != nil {
		return nil, err
	}
	if code := m.Header.Get(wire.HeaderErrorCode); code != "" {
		return nil, wire.FromHeader(code, m.Header.Get(wire.HeaderError))
	}
	var r wire.InfoReply
	err = wire.Unmarshal(m.Data, &r)
	return r.Manifest, err
}

// prune drops manifests that nobody names when there are too many.
func (d *Directory) prune() {
	if len(d.manifests) < maxCached {
		return
	}
	used := map[string]bool{}
	for _, p := range d.peers {
		if p.doc != nil {
			for _, a := range p.doc.Apps {
				for _, h := range a.Manifests {
					used[h] = true
				}
			}
		}
	}
	maps.DeleteFunc(d.manifests, func(h string, _ *wire.Manifest) bool { return !used[h] })
}

// Complete says whether the methods of everyone are known.
func (d *Directory) Complete(ctx context.Context) bool {
	done := make(chan bool, 1)
	d.post(func() { done <- len(d.fetching) == 0 })
	select {
	case ok := <-done:
		return ok
	case <-ctx.Done():
	case <-d.done:
	}
	return false
}

var hashText = base32.StdEncoding.WithPadding(base32.NoPadding)

// hashOf names a manifest: 26 characters of base32 of its SHA-256, lower case.
func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return strings.ToLower(hashText.EncodeToString(sum[:]))[:26]
}

// Manifest returns the bytes of one of this node's own manifests.
func (d *Directory) Manifest(hash string) ([]byte, error) {
	d.mu.RLock()
	self := d.self
	d.mu.RUnlock()
	for _, a := range self.Apps {
		if h, data, err := manifestOf(a); err == nil && h == hash {
			return data, nil
		}
	}
	return nil, wire.Errorf(wire.Unavailable, "node %s has no manifest %s", d.cfg.Self, hash)
}

// manifestOf encodes what an app offers; equal offers have equal bytes.
func manifestOf(a *App) (hash string, data []byte, err error) {
	m := wire.Manifest{Methods: make([]wire.Method, len(a.Methods))}
	for i, def := range a.Methods {
		m.Methods[i] = *def
	}
	slices.SortFunc(m.Methods, func(x, y wire.Method) int { return strings.Compare(x.Name, y.Name) })
	if data, err = wire.MarshalSorted(m); err != nil {
		return "", nil, err
	}
	return hashOf(data), data, nil
}
