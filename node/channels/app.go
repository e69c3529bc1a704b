package channels

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node/contexts"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// listAtOnce is how many channels are read at a time.
const listAtOnce = 16

// App is the channels of a realm as one app has them. Values that it takes are
// whatever encodes to msgpack, a wire.Payload, or a json.RawMessage.
type App struct {
	c        *Channels
	id       subjects.App
	contexts *contexts.App
}

// For is the channels for an app of this node.
func (c *Channels) For(app subjects.App) *App {
	return &App{c: c, id: app, contexts: c.cfg.Contexts.For(app)}
}

// Channel is a channel at one moment, as the apps of this node see it.
type Channel struct {
	Name string
	// Meta describes the channel: an object with at least color, and what else
	// its maker gave it.
	Meta wire.Payload
	// Data is what is published on the channel, an object unless a plain NATS
	// client has made something else of it.
	Data wire.Payload
	// Revision is the sequence of the newest acknowledged write, 0 for none.
	Revision uint64
	// By is who made the newest change.
	By contexts.Writer
	// Pending says that writes of this node are in it that are not acknowledged
	// yet.
	Pending bool
	// Since is zero while the node knows the newest state, else the time since
	// when others may have changed it: the fabric is offline.
	Since time.Time
}

// Color is the channel's colour, an HTML name or #RRGGBB; "" if it has none.
func (c Channel) Color() string {
	var m struct {
		Color string `msgpack:"color"`
	}
	_ = c.Meta.Decode(&m) // anybody may have written it
	return m.Color
}

var emptyObject = wire.Payload{Data: wire.AppendMap(nil, 0)}

// channel reads the context of a channel that exists.
func channel(name string, s contexts.State) Channel {
	c := Channel{Name: name, Meta: s.At("meta"), Data: s.At("data"), Revision: s.Revision, By: s.By, Pending: s.Pending, Since: s.Since}
	if c.Meta.IsZero() {
		c.Meta = emptyObject
	}
	if c.Data.IsZero() {
		c.Data = emptyObject
	}
	return c
}

// Names lists the channels of the realm: the defaults in their order, then the
// others in byte order.
func (a *App) Names(ctx context.Context) ([]string, error) {
	a.c.ready(ctx)
	all, err := a.contexts.Names(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range all {
		if name, ok := nameOf(name); ok {
			names = append(names, name)
		}
	}
	sortNames(names)
	return names, nil
}

// nameOf is the channel that a context holds.
func nameOf(context string) (string, bool) {
	name, ok := strings.CutPrefix(context, Prefix)
	return name, ok && name != ""
}

// List returns the channels of the realm in the order of Names.
func (a *App) List(ctx context.Context) ([]Channel, error) {
	names, err := a.Names(ctx)
	if err != nil {
		return nil, err
	}
	list, errs := make([]Channel, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	room := make(chan struct{}, listAtOnce)
	for i, name := range names {
		room <- struct{}{}
		wg.Go(func() {
			list[i], errs[i] = a.get(ctx, name)
			<-room
		})
	}
	wg.Wait()
	found := list[:0]
	for i := range list {
		switch {
		case errs[i] == nil:
			found = append(found, list[i])
		case !errors.Is(errs[i], wire.ErrBadName): // that one was removed meanwhile
			return nil, errs[i]
		}
	}
	return found, nil
}

// Get returns a channel; one that is not there is bad-name.
func (a *App) Get(ctx context.Context, name string) (Channel, error) {
	a.c.ready(ctx)
	return a.get(ctx, name)
}

func (a *App) get(ctx context.Context, name string) (Channel, error) {
	full, err := contextName(name)
	if err != nil {
		return Channel{}, err
	}
	s, err := a.contexts.Get(ctx, full)
	switch {
	case err != nil:
		return Channel{}, ofChannel(name, err)
	case !s.Exists:
		return Channel{}, noChannel(name)
	}
	return channel(name, s), nil
}

// Add makes a channel. Its meta is an object with at least a color, data an object
// or nil for an empty one. A channel that is there already is bad-name.
func (a *App) Add(ctx context.Context, name string, meta, data any) error {
	full, err := contextName(name)
	if err != nil {
		return err
	}
	m, err := objectOf("meta", name, meta)
	if err != nil {
		return err
	}
	d, err := objectOf("data", name, data)
	if err != nil {
		return err
	}
	if (Channel{Meta: m}).Color() == "" {
		return wire.Errorf(wire.BadPayload, "channel %q needs a color in its meta", name)
	}
	a.c.ready(ctx)
	made, _, err := a.contexts.Create(ctx, full, object{Name: name, Meta: m, Data: d})
	if err == nil && !made {
		err = wire.Errorf(wire.BadName, "there is already a channel %q", name)
	}
	return ofChannel(name, err)
}

// ofChannel is an error of a context as one of its channel.
func ofChannel(name string, err error) error {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return err
	}
	text := strings.ReplaceAll(e.Message, "context "+strconv.Quote(Prefix+name), "channel "+strconv.Quote(name))
	if text == e.Message {
		return err
	}
	return &wire.Error{Code: e.Code, Message: text}
}

// objectOf is an object of a channel as msgpack, empty for no value.
func objectOf(what, name string, x any) (wire.Payload, error) {
	p, err := wire.Encode(x)
	if err == nil {
		p, err = p.As(wire.Msgpack)
	}
	switch {
	case err != nil:
		return p, err
	case p.IsZero():
		return emptyObject, nil
	case !wire.IsMap(p.Data):
		return p, wire.Errorf(wire.BadPayload, "%s of channel %q is not an object", what, name)
	}
	return p, nil
}

// Remove ends a channel for everybody; whoever is on it is then on none. A channel
// that is not there is bad-name.
func (a *App) Remove(ctx context.Context, name string) error {
	full, err := contextName(name)
	if err != nil {
		return err
	}
	a.c.ready(ctx)
	switch _, err := a.contexts.Destroy(ctx, full); {
	case errors.Is(err, wire.ErrBadName):
		return noChannel(name)
	case err != nil:
		return ofChannel(name, err)
	}
	for _, s := range a.c.on(name) { // the others hear of it
		if now, _ := s.where(); now != nil && now.channel == name {
			s.expel(now, contexts.Writer{App: a.id, Node: a.c.cfg.Self})
		}
	}
	return nil
}

// Join takes the app to a channel, away from the one that it is on. It returns
// when other nodes know, or at once while the fabric is offline. A channel that is
// not there is bad-name. After canceled and timeout [App.My] says whether the
// app has joined.
func (a *App) Join(ctx context.Context, name string) error {
	full, err := contextName(name)
	if err != nil {
		return err
	}
	s, err := a.c.session(a.id)
	if err != nil {
		return err
	}
	a.c.ready(ctx)
	if s.channel() == name {
		return a.settle(ctx)
	}
	if _, err := a.get(ctx, name); err != nil {
		return err
	}
	w, err := a.contexts.Watch(ctx, full)
	if err != nil {
		return err
	}
	switch e, ok := w.Next(ctx); {
	case ctx.Err() != nil:
		err = wire.AsError(ctx.Err())
	case !ok:
		err = hasLeft(a.id)
	case !e.Exists:
		err = noChannel(name)
	default:
		err = s.enter(name, w)
	}
	if err != nil {
		w.Close()
		return err
	}
	return a.settle(ctx)
}

// Leave takes the app off its channel; being on none is no error. It returns when
// other nodes know, or at once while the fabric is offline.
func (a *App) Leave(ctx context.Context) error {
	s, err := a.c.session(a.id)
	if err != nil {
		return err
	}
	s.leave()
	return a.settle(ctx)
}

func (a *App) settle(ctx context.Context) error {
	if err := a.c.cfg.Directory.Settle(ctx); err != nil {
		return wire.AsError(err)
	}
	return nil
}

// My is the channel that the app is on, "" for none.
func (a *App) My() string {
	s, err := a.c.session(a.id)
	if err != nil {
		return ""
	}
	return s.channel()
}

// Publish puts each top-level key of an object into the data of the app's channel
// and leaves the other keys alone; one that is nil is removed. It returns the
// revision of the write. On no channel it is bad-name.
func (a *App) Publish(ctx context.Context, data any) (contexts.Ack, error) {
	name, err := a.mine()
	if err != nil {
		return contexts.Ack{}, err
	}
	return a.PublishTo(ctx, name, data)
}

func (a *App) mine() (string, error) {
	s, err := a.c.session(a.id)
	if err != nil {
		return "", err
	}
	name := s.channel()
	if name == "" {
		return "", wire.Errorf(wire.BadName, "not joined to any channel")
	}
	return name, nil
}

// PublishTo is [App.Publish] to a channel that the app need not be on.
func (a *App) PublishTo(ctx context.Context, name string, data any) (contexts.Ack, error) {
	p, err := wire.Encode(data)
	if err == nil {
		p, err = p.As(wire.Msgpack)
	}
	if err != nil {
		return contexts.Ack{}, err
	}
	if p.IsZero() || !wire.IsMap(p.Data) {
		return contexts.Ack{}, wire.Errorf(wire.BadPayload, "what is published on a channel is an object")
	}
	var values []contexts.PathValue
	for key, value := range wire.Members(p.Data) {
		values = append(values, contexts.PathValue{Path: []string{key}, Value: wire.Payload{Data: value}})
	}
	return a.SetPathsTo(ctx, name, values)
}

// SetPath puts a value at a path in the data of the app's channel; nil removes what
// is there. What is missing on the way becomes objects.
func (a *App) SetPath(ctx context.Context, path []string, value any) (contexts.Ack, error) {
	return a.SetPaths(ctx, []contexts.PathValue{{Path: path, Value: value}})
}

// SetPaths is several SetPath in their order, all or none.
func (a *App) SetPaths(ctx context.Context, values []contexts.PathValue) (contexts.Ack, error) {
	name, err := a.mine()
	if err != nil {
		return contexts.Ack{}, err
	}
	return a.SetPathsTo(ctx, name, values)
}

// SetPathsTo is [App.SetPaths] for a channel that the app need not be on. An empty
// path is all of the data, which must be an object.
func (a *App) SetPathsTo(ctx context.Context, name string, values []contexts.PathValue) (contexts.Ack, error) {
	inData := make([]contexts.PathValue, len(values))
	for i, v := range values {
		if len(v.Path) == 0 {
			p, err := wire.Encode(v.Value)
			if err == nil && p.IsZero() {
				err = wire.Errorf(wire.BadPayload, "the data of channel %q cannot be removed: set it to an empty object", name)
			}
			if err == nil {
				p, err = objectOf("data", name, p)
			}
			if err != nil {
				return contexts.Ack{}, err
			}
			v.Value = p
		}
		inData[i] = contexts.PathValue{Path: slices.Concat([]string{"data"}, v.Path), Value: v.Value}
	}
	a.c.ready(ctx)
	now, err := a.get(ctx, name)
	if err != nil || len(values) == 0 {
		return contexts.Ack{Revision: now.Revision}, err
	}
	// It may be removed right now; a context that is only data is no channel.
	ack, err := a.contexts.SetPaths(ctx, Prefix+name, inData, contexts.MustExist())
	return ack, ofChannel(name, err)
}
