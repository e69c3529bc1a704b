package contexts

import (
	"time"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// journalled is a write that is in the journal.
type journalled struct {
	*op
	key     uint64 // of its record
	id      string
	written time.Time
	// base is the revision that it was written on; known says whether the context was.
	// was is its object then, nil also after a restart.
	base  uint64
	known bool
	was   *kv.Value
}

// attempt is what was sent of writes that are kept, and may have been made.
type attempt struct {
	key   uint64 // of its record
	id    string
	keys  []subjects.Key
	after uint64 // a sequence before it
	sent  time.Time
	ops   []uint64 // the keys of what it makes
	lost  []lost   // what of them it leaves out
	// settled says that its outcome is known. It is remembered for its id until
	// nothing is kept any more.
	settled bool
}

// lost is an edit of a kept write that is not made, and why.
type lost struct {
	op   uint64
	edit kv.Edit
	why  string
}

// The journal's records. One of them holds one of these.
type (
	record struct {
		Write       *writeRecord   `msgpack:"write,omitempty"`
		Attempt     *attemptRecord `msgpack:"attempt,omitempty"`
		Overwritten *Overwritten   `msgpack:"overwritten,omitempty"`
	}
	writeRecord struct {
		Context   string        `msgpack:"context"`
		ID        string        `msgpack:"id"`
		Task      uint8         `msgpack:"task"`
		Edits     []editRecord  `msgpack:"edits"`
		App       subjects.App  `msgpack:"app"`
		Node      subjects.Node `msgpack:"node"`
		Meta      []byte        `msgpack:"meta,omitempty"`
		MustExist bool          `msgpack:"mustExist,omitempty"`
		Who       kv.Who        `msgpack:"who"`
		Base      uint64        `msgpack:"base"`
		Known     bool          `msgpack:"known"`
		Written   int64         `msgpack:"written"` // milliseconds of Unix time
	}
	editRecord struct {
		Path  []string `msgpack:"path"`
		Value []byte   `msgpack:"value,omitempty"` // msgpack, absent for a removal
	}
	attemptRecord struct {
		Context string         `msgpack:"context"`
		ID      string         `msgpack:"id"`
		Keys    []subjects.Key `msgpack:"keys"`
		After   uint64         `msgpack:"after"`
		Sent    int64          `msgpack:"sent"`
		Ops     []uint64       `msgpack:"ops"`
		Lost    []lostRecord   `msgpack:"lost,omitempty"`
	}
	lostRecord struct {
		Op   uint64     `msgpack:"op"`
		Edit editRecord `msgpack:"edit"`
		Why  string     `msgpack:"why"`
	}
)

func put(key uint64, r record) (journal.Change, error) {
	data, err := wire.Marshal(r)
	return journal.Change{Key: key, Data: data}, err
}

func recordEdit(e kv.Edit) editRecord { return editRecord{Path: e.Path, Value: e.Value.Payload().Data} }

func (r editRecord) edit(by Writer) (kv.Edit, error) {
	e := kv.Edit{Path: r.Path, By: by.String()}
	if r.Value == nil {
		return e, nil
	}
	var err error
	e.Value, err = kv.ParseValue(wire.Payload{Data: r.Value})
	return e, err
}

func (k *journalled) put(context string) (journal.Change, error) {
	r := &writeRecord{
		Context: context, ID: k.id, Task: uint8(k.task), App: k.by.App, Node: k.by.Node, Meta: k.encoded, MustExist: k.mustExist, Who: k.who,
		Base: k.base, Known: k.known, Written: k.written.UnixMilli(),
	}
	for _, e := range k.edits {
		r.Edits = append(r.Edits, recordEdit(e))
	}
	return put(k.key, record{Write: r})
}

func (r *writeRecord) journalled(key uint64) (*journalled, error) {
	o := &op{task: task(r.Task), by: Writer{r.App, r.Node}, encoded: r.Meta, mustExist: r.MustExist, who: r.Who}
	for _, x := range r.Edits {
		e, err := x.edit(o.by)
		if err != nil {
			return nil, err
		}
		o.edits, o.bytes = append(o.edits, e), o.bytes+e.Value.Size()
	}
	if o.task > destroy || len(o.edits) == 0 {
		return nil, wire.Errorf(wire.BadPayload, "not a write of a context")
	}
	if o.task == create {
		o.meta = &Meta{}
		if err := (wire.Payload{Data: r.Meta}).Decode(o.meta); err != nil {
			return nil, err
		}
	}
	return &journalled{op: o, key: key, id: r.ID, written: time.UnixMilli(r.Written), base: r.Base, known: r.Known}, nil
}

func (a *attempt) put(context string) (journal.Change, error) {
	r := &attemptRecord{Context: context, ID: a.id, Keys: a.keys, After: a.after, Sent: a.sent.UnixMilli(), Ops: a.ops}
	for _, l := range a.lost {
		r.Lost = append(r.Lost, lostRecord{l.op, recordEdit(l.edit), l.why})
	}
	return put(a.key, record{Attempt: r})
}

func (r *attemptRecord) attempt(key uint64) (*attempt, error) {
	a := &attempt{key: key, id: r.ID, keys: r.Keys, after: r.After, sent: time.UnixMilli(r.Sent), ops: r.Ops}
	for _, l := range r.Lost {
		e, err := l.Edit.edit(Writer{})
		if err != nil {
			return nil, err
		}
		a.lost = append(a.lost, lost{l.Op, e, l.Why})
	}
	if len(a.keys) == 0 {
		return nil, wire.Errorf(wire.BadPayload, "an attempt without keys")
	}
	return a, nil
}
