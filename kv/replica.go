package kv

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// holdFor is how long the parts of a batch wait for the rest.
	holdFor = time.Second
	// checkEvery is how often a replica looks for what it missed, and checkFirst
	// when it does so after it began to follow: the interest may have needed a
	// moment to spread through the cluster.
	checkEvery = 5 * time.Second
	checkFirst = time.Second
	// refreshWithin and soonWithin are within what time a replica reads everything, or looks
	// what it has missed, that was made to: each node at other moments.
	refreshWithin = 100 * time.Millisecond
	soonWithin    = time.Second
	// behindMost is how often in a row a replica looks whose answer is late, a second apart,
	// before it reads everything.
	behindMost   = 8
	refreshRetry = 100 * time.Millisecond
	refreshMost  = 5 * time.Second
	// maxBacklog is how many writes wait for a snapshot.
	maxBacklog = 1024
	// shortFor is how long a replica may get less than the leader has before that
	// is an alarm.
	shortFor = 20 * time.Second
	// tailFor is how long the leader must have less than was seen before that counts
	// as lost: a new leader may need a moment for what was committed before it.
	tailFor = 5 * time.Second
)

// Update is what a replica learned.
type Update struct {
	// Entries are newer than what was known of their keys. Those of a batch
	// come together.
	Entries []Entry
	// Removed are keys that are proven to be gone. What Entries has of them is what
	// the stream has left.
	Removed []subjects.Key
	// Snapshot says that the replica was found equal to the leader, up to UpTo.
	Snapshot bool
	UpTo     uint64
	// Anew says that the stream is another one than before: everything that
	// was known is among Removed.
	Anew bool
}

// Replica follows the keys below its filters: it is equal to what the leader of
// the stream has, or finds out that it is not and reads everything again. Create
// it with [Bucket.Replicate].
type Replica struct {
	bucket  *Bucket
	filters []subjects.Key
	whole   bool
	log     *slog.Logger
	update  func(Update)

	cancel  context.CancelFunc
	done    chan struct{}
	refresh chan string   // why; of several the first
	soon    chan struct{} // to check soon
	due     atomic.Bool   // the next regular check reads everything
	ready   chan struct{}

	// gone says which of some keys were removed after the sequences that are known of
	// them, in this creation of the stream; see [Bucket.removed].
	gone    func(ctx context.Context, keys map[subjects.Key]uint64, created time.Time) ([]subjects.Key, error)
	behind  int           // how often in a row the answer to a check was late
	reading chan struct{} // has room while nobody reads; guards what follows
	short   time.Time     // since when less than the leader has is read

	mu      sync.Mutex // also serialises update
	seqs    map[subjects.Key]mark
	purged  map[subjects.Key]uint64 // keys that are gone, until nothing older can come
	flow    uint64                  // the newest sequence that was republished
	upTo    uint64                  // of the newest snapshot
	checked uint64                  // nothing up to here was missed
	top     uint64                  // the newest sequence that was seen
	missing int                     // keys that the stream has not got, without a proof
	created time.Time
	synced  bool // a snapshot was taken since the connection was made
	isReady bool
	// away says that the connection was lost, or that a write was missed, since the last
	// snapshot: what is republished waits in backlog for the next, or it would show
	// without what was missed.
	away    bool
	backlog []Entry
	err     error
	held    []Entry
	holding *time.Timer
	stats   ReplicaStats
}

// mark is what a replica knows of a key: its sequence, its place in the fold, and
// who wrote it.
type mark struct {
	seq, at uint64
	id      string
}

func markOf(e *Entry) mark { return mark{e.Seq, e.placeAt(), e.WriteID} }

// isOf says whether an entry is the very one, as far as can be told.
func (m mark) isOf(e *Entry) bool {
	return m.seq == e.Seq && (m.id == e.WriteID || m.id == "" || e.WriteID == "")
}

// ReplicaStats count what happened to a replica.
type ReplicaStats struct {
	// Snapshots is how many were taken, Gaps how many were because a write was
	// missed, Caught how many writes a regular check found before they, or
	// instead of that they, were republished.
	Snapshots, Gaps, Caught uint64
}

// Replicate follows the keys below some filters until the replica is closed.
// update is called for everything that is learned, one call at a time, and must
// not call the replica. With whole the members of a batch are held until its
// commit has come, which needs one filter that matches all of them. What comes
// below different filters comes in any order, except that a snapshot is of all.
//
// Wake must be called when the connection was made or lost.
func (b *Bucket) Replicate(filters []subjects.Key, whole bool, log *slog.Logger, update func(Update)) *Replica {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := newReplica(b, filters, whole, log, update)
	r.cancel = cancel
	b.health.add(r)
	go r.run(ctx)
	return r
}

func newReplica(b *Bucket, filters []subjects.Key, whole bool, log *slog.Logger, update func(Update)) *Replica {
	return &Replica{
		bucket: b, filters: filters, whole: whole, log: log, update: update, gone: b.removed, reading: make(chan struct{}, 1),
		done: make(chan struct{}), refresh: make(chan string, 1), soon: make(chan struct{}, 1), ready: make(chan struct{}),
		seqs: map[subjects.Key]mark{}, purged: map[subjects.Key]uint64{},
	}
}

// Close ends the replica; update is not called any more when it returns.
func (r *Replica) Close() {
	r.cancel()
	<-r.done
}

// Ready is closed when the first snapshot has been taken.
func (r *Replica) Ready() <-chan struct{} { return r.ready }

// State says whether the replica follows the stream, and if not, why.
func (r *Replica) State() (synced bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.synced, r.err
}

// Stats returns the counters.
func (r *Replica) Stats() ReplicaStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Wake says that the connection was made, or was lost.
func (r *Replica) Wake(online bool) {
	if !online {
		r.mu.Lock()
		r.synced, r.away = false, r.isReady
		r.mu.Unlock()
		return
	}
	r.Refresh("connected")
}

// Refresh makes the replica take a snapshot.
func (r *Replica) Refresh(why string) {
	select {
	case r.refresh <- why:
	default:
	}
}

// look makes the replica look soon what it has missed.
func (r *Replica) look() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// CatchUp returns when the replica has everything that was acknowledged before the
// call, without waiting for it to be republished.
func (r *Replica) CatchUp(ctx context.Context) error {
	return r.read(ctx)
}

// Confirm takes writes that the stream acknowledged, before they are
// republished.
func (r *Replica) Confirm(entries []Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apply(entries, false)
}

// Learn takes what is new in a snapshot of the replica's filters.
func (r *Replica) Learn(s Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isReady && !r.away && r.created.Equal(s.Created) { // or it reads everything itself
		r.stats.Caught += r.apply(inOrder(s.Entries), false)
	}
}

// inOrder lists entries in the order of their sequences.
func inOrder(entries map[subjects.Key]Entry) []Entry {
	return slices.SortedFunc(maps.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
}

func (r *Replica) run(ctx context.Context) {
	defer close(r.done)
	defer r.forget()
	subs, ok := r.subscribe(ctx)
	defer func() {
		for _, sub := range subs {
			r.bucket.link.Unsubscribe(sub)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.release()
		r.update = func(Update) {}
	}()
	if !ok {
		return
	}
	check := time.NewTimer(checkFirst)
	defer check.Stop()
	r.snapshot(ctx)
	for {
		select {
		case why := <-r.refresh:
			if broken == "resync" {
				r.pretend()
				continue
			}
			r.log.DebugContext(ctx, "reading again", slog.Any("filters", r.filters), slog.String("why", why))
			if !rest(ctx, r.bucket.health.until(refreshWithin)) {
				return
			}
			r.snapshot(ctx)
			check.Reset(checkFirst)
		case <-r.soon:
			if broken == "resync" {
				continue
			}
			if !rest(ctx, r.bucket.health.until(soonWithin)) {
				return
			}
			if r.check(ctx) {
				r.snapshot(ctx)
			}
			check.Reset(r.bucket.health.until(checkEvery))
		case <-check.C:
			if broken == "resync" {
				check.Reset(r.bucket.health.until(checkEvery))
				continue
			}
			if r.bucket.keeps {
				r.bucket.audit(ctx, false)
			}
			if r.due.Load() || r.check(ctx) {
				r.snapshot(ctx)
			}
			check.Reset(r.bucket.health.until(checkEvery))
		case <-ctx.Done():
			return
		}
	}
}

// pretend is what a broken replica does instead of reading again.
func (r *Replica) pretend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.synced, r.err = true, nil
	r.update(Update{Snapshot: true, UpTo: r.upTo})
}

// subscribe tries until it succeeds; false when ctx has ended.
func (r *Replica) subscribe(ctx context.Context) (subs []*nats.Subscription, ok bool) {
	for try := 0; len(subs) < len(r.filters); {
		sub, err := r.bucket.Follow(ctx, r.filters[len(subs)], r.follow, func(int) { r.gap("too slow") })
		if err == nil {
			subs = append(subs, sub)
			continue
		}
		r.failed(ctx, err)
		if !r.retry(ctx, try, nil) {
			return subs, false
		}
		try++
	}
	return subs, true
}

// snapshot reads everything, and again until it succeeds.
func (r *Replica) snapshot(ctx context.Context) {
	h := &r.bucket.health
	for try := 0; ; try++ {
		select {
		case <-r.refresh: // what is read now is that
		default:
		}
		r.due.Store(false)
		began := time.Now()
		err := r.read(ctx)
		if err == nil {
			h.works()
			return
		}
		r.failed(ctx, err)
		if errors.Is(err, wire.ErrOffline) {
			return // Wake tells
		}
		if !r.retry(ctx, try, h.fails(began)) {
			return
		}
	}
}

// retry waits until it is time to try again, or another replica could read; false when
// ctx has ended.
func (r *Replica) retry(ctx context.Context, try int, works <-chan struct{}) bool {
	d := min(refreshRetry<<min(try, 10), refreshMost)
	select {
	case <-time.After(jittered(d)):
	case <-works:
	case <-ctx.Done():
		return false
	}
	return true
}

func (r *Replica) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	r.synced, r.err = false, err
	r.mu.Unlock()
	r.log.DebugContext(ctx, "cannot read", slog.Any("filters", r.filters), slog.Any("error", err))
}

// merge makes the replica what the snapshot says, except for what is newer, and for
// keys that the stream has not got any more without a proof that they were removed.
func (r *Replica) merge(s Snapshot, p proof) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := Update{Snapshot: true, UpTo: s.UpTo}
	if !r.created.Equal(s.Created) {
		u.Anew = !r.created.IsZero()
		if u.Anew {
			u.Removed = slices.Collect(maps.Keys(r.seqs))
			u.Removed = slices.AppendSeq(u.Removed, maps.Keys(r.purged))
			clear(r.seqs)
			clear(r.purged)
			r.flow, r.upTo, r.top = 0, 0, 0
			r.release()
		}
		r.created = s.Created
	}
	u.Removed = append(u.Removed, r.rewind(s, p)...)
	missing := 0
	for key, m := range r.seqs {
		e, ok := s.Entries[key]
		switch {
		case ok && e.Seq >= m.seq, m.seq > s.UpTo:
		case !ok && (!r.bucket.keeps || isHidden(key, m, s.Entries) || p.gone[key] == m.seq):
			u.Removed = append(u.Removed, key)
			delete(r.seqs, key)
		default:
			missing++
		}
	}
	r.warn(missing)
	for key, e := range s.Entries {
		known := r.known(key)
		if e.Seq < known {
			continue
		}
		r.seqs[key] = markOf(&e)
		delete(r.purged, key)
		if e.Seq > known {
			u.Entries = append(u.Entries, e)
		}
	}
	r.upTo, r.checked = max(r.upTo, s.UpTo), s.UpTo
	r.saw(s.UpTo)
	if len(r.held) > 0 && r.held[0].Seq <= r.upTo {
		r.release()
	}
	for key, seq := range r.purged {
		if seq <= min(r.flow, r.upTo) {
			delete(r.purged, key)
		}
	}
	r.synced, r.err = true, nil
	r.stats.Snapshots++
	r.update(u)
	backlog := r.backlog
	r.away, r.backlog = false, nil
	for i := range backlog {
		r.hear(backlog[i])
	}
	if !r.isReady {
		r.isReady = true
		close(r.ready)
	}
}

// known is the newest sequence of a key that was seen. mu is held.
func (r *Replica) known(key subjects.Key) uint64 { return max(r.seqs[key].seq, r.purged[key]) }

// follow takes one republished write.
func (r *Replica) follow(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hear(e)
}

// hear is follow. mu is held.
func (r *Replica) hear(e Entry) {
	if !r.away && r.lacks(&e) {
		r.away = true
		r.release()
		r.missed(e.Seq, "a write was missed that its successor knew")
	}
	if r.away {
		if len(r.backlog) == maxBacklog { // the next snapshot has the first of them
			r.backlog = append(r.backlog[:0:0], r.backlog[maxBacklog/2:]...)
		}
		r.backlog = append(r.backlog, e)
		return
	}
	r.take(e)
}

// lacks says whether the writer of an entry knew of one that has not come here. Without
// that nothing would show that it was lost, as it is of another key. mu is held.
func (r *Replica) lacks(e *Entry) bool {
	return r.whole && r.isReady && broken != "resync" && e.Seq > r.upTo && e.Seen < e.Seq && e.Seen > max(r.top, r.checked)
}

// missed sees to what was lost: here everything is read again, and the other replicas
// look what they have missed, for a loss is seldom alone. seq is that of a later write.
// mu is held.
func (r *Replica) missed(seq uint64, why string) {
	r.stats.Gaps++
	r.Refresh(why)
	r.bucket.health.suspectLoss(r, seq)
}

// take is follow for a replica that is there. mu is held.
func (r *Replica) take(e Entry) {
	r.flow = max(r.flow, e.Seq)
	r.saw(e.Seq)
	if e.Seq <= r.upTo {
		return // the snapshot had it, or something newer
	}
	if !r.whole || e.Batch == "" {
		if len(r.held) > 0 {
			r.broken()
		}
		r.apply([]Entry{e}, true)
		return
	}
	switch n := len(r.held); {
	case n > 0 && r.held[0].Batch == e.Batch && r.held[n-1].BatchSeq+1 == e.BatchSeq:
	case n == 0 && (e.BatchSeq == 1 || e.Seq-1 <= r.upTo):
	default:
		r.broken()
		if e.BatchSeq != 1 {
			return
		}
	}
	r.held = append(r.held, e)
	if e.Commit {
		entries := r.held
		r.held = nil
		r.release()
		r.apply(entries, true)
		return
	}
	if r.holding == nil {
		r.holding = time.AfterFunc(holdFor, func() { r.gap("the rest of a batch did not come") })
	}
}

// saw notes that the stream has reached a sequence. mu is held.
func (r *Replica) saw(seq uint64) {
	r.top = max(r.top, seq)
	r.bucket.health.saw(seq)
}

// broken gives up on a batch that cannot become complete. mu is held.
func (r *Replica) broken() {
	r.release()
	r.missed(r.top, "a part of a batch is missing")
}

// release drops what is held. mu is held.
func (r *Replica) release() {
	r.held = nil
	if r.holding != nil {
		r.holding.Stop()
		r.holding = nil
	}
}

func (r *Replica) gap(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release()
	r.missed(r.top, why)
}

// apply passes on what is newer than what is known, and says how much that was.
// mu is held.
func (r *Replica) apply(entries []Entry, republished bool) (applied uint64) {
	news := entries[:0:0]
	for i := range entries {
		e := &entries[i]
		known := r.known(e.Key)
		if e.Seq <= known || e.Seq <= r.upTo {
			continue
		}
		if republished && r.isReady && e.Previous > known {
			r.missed(e.Seq, "a write was missed")
		}
		delete(r.seqs, e.Key)
		delete(r.purged, e.Key)
		if e.skipped() {
			r.purged[e.Key] = e.Seq
		} else {
			r.seqs[e.Key] = markOf(e)
		}
		r.saw(e.Seq)
		news = append(news, *e)
	}
	if len(news) > 0 {
		r.update(Update{Entries: news})
	}
	return uint64(len(news))
}

func (r *Replica) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seqs)+len(r.purged) == 0
}

// check reads what was written since the last time: what was lost on its way is among
// it. An answer counts that has reached what any replica of the node has seen: a server
// that was cut off answers before it has what its clients have missed. It says whether a
// snapshot is needed.
func (r *Replica) check(ctx context.Context) (refresh bool) {
	r.mu.Lock()
	synced, from, missing, keys := r.synced, r.checked, r.missing, len(r.seqs)+len(r.purged)
	r.mu.Unlock()
	if !synced || missing > 0 {
		return true
	}
	least := max(r.bucket.health.top.Load(), from)
	s, why, err := r.bucket.since(ctx, r.filters, from, keys)
	if err == nil && why == "" && s.UpTo < least && pause(ctx, lagFor) {
		s, why, err = r.bucket.since(ctx, r.filters, from, keys)
	}
	if err == nil && why == "" && s.UpTo < least && r.behind < behindMost {
		r.behind++ // everything can be read no sooner than what is new
		r.look()
		return false
	}
	if err == nil && why == "" && s.UpTo < least {
		why = behind(s.UpTo, least)
	}
	r.behind = 0
	if err != nil {
		r.failed(ctx, err)
		return !errors.Is(err, wire.ErrOffline)
	}
	if s.UpTo == nothing && r.empty() {
		return false
	}
	if why != "" {
		r.log.DebugContext(ctx, "reading again", slog.Any("filters", r.filters), slog.String("why", why))
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked = max(r.checked, s.UpTo)
	r.stats.Caught += r.apply(inOrder(s.Entries), false)
	return false
}
