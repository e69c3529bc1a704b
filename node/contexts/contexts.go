package contexts

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weft-fabric/weft/alarm"
	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/node/journal"
	"github.com/weft-fabric/weft/node/restriction"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

const (
	// idleFor is how long a context stays open that nobody uses.
	idleFor = 2 * time.Minute
	// awaitPoll is how often one who waits for a snapshot looks why there is none.
	awaitPoll = time.Second
	// verifyRetry is how often the bucket is looked at again that is not as it
	// must be.
	verifyRetry = 10 * time.Second
)

// Config says who this node is.
type Config struct {
	Realm  subjects.Realm
	Self   subjects.Node
	Link   *link.Link
	Logger *slog.Logger
	// Alarms is told of damage, nil for nobody.
	Alarms *alarm.Set
	// CompactAt is how many keys and markers a context gathers before it is
	// compacted, 0 for [kv.CompactAt].
	CompactAt int

	// Identity is the identity of an app of this node, and Attributes what
	// permissions compare of an identity. Without them apps have no attributes.
	Identity   func(subjects.App) (wire.Identity, bool)
	Attributes func(*wire.Identity) restriction.Attributes

	// The directory, by which contexts end with whom they belong to. Without it, that
	// is if Directory is nil, none ends by itself.
	//
	// Directory is closed at its next change, and Complete says whether everybody is
	// in it: not while it is read, or the fabric is offline. Alive says whether an
	// app is there, and Holders lists the apps of all machines that hold a
	// ref-counted context. Hold tells it what an app of this node holds, which
	// it shows at once; others can see it when Settle has returned. They are called
	// with locks held and must not call back; Settle is not, and may block.
	Directory func() <-chan struct{}
	Complete  func() bool
	Alive     func(subjects.App) bool
	Holders   func(context string) []subjects.App
	Hold      func(app subjects.App, contexts []string) error
	Settle    func(context.Context) error

	// Journal keeps what is written while the fabric is away, and Kept is what was in it
	// when it was opened. Without it such writes are refused. Who opened it closes it,
	// after Close.
	Journal *journal.Journal
	Kept    []journal.Record
	// Policies say what becomes of such writes; the first that matches decides, and
	// [RemoteWins] where none does.
	Policies []Policy
}

// Contexts is the contexts of one realm. Create it with [New].
type Contexts struct {
	cfg     Config
	log     *slog.Logger
	bucket  *kv.Bucket
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	stats   counters
	count   atomic.Int64 // of contexts in the realm, below 0 if it is not known
	age     atomic.Int64 // of the history, 0 if it is not limited or not known
	keeper  *keeper      // nil without a directory
	keep    sync.Once
	outages outages
	locals  locals

	mu     sync.Mutex
	open   map[string]*shared
	names  *names
	since  time.Time // when the fabric was lost, zero while it is there
	leader *nats.Subscription
	// usable is nil when the bucket was found to be as it must be.
	usable error
	closed bool
	used   chan struct{} // closed when an app uses a context for the first time
	first  sync.Once
}

// Stats are counters since the start.
type Stats struct {
	// Open is how many contexts are replicated now.
	Open int `json:"open"`
	// Writes were acknowledged, Refused were not; Retried had an outcome that
	// was not known at first. Conflicts are conditions that did not hold and were
	// tried again.
	Writes    uint64 `json:"writes"`
	Refused   uint64 `json:"refused"`
	Retried   uint64 `json:"retried"`
	Conflicts uint64 `json:"conflicts"`
	// Compactions were committed. Mended are foreign writes that were about to
	// expire. Unreadable are writes of others that fold as absent.
	Compactions uint64 `json:"compactions"`
	Mended      uint64 `json:"mended"`
	Unreadable  uint64 `json:"unreadable"`
	// Ended are contexts that this node ended because of their lifetime.
	Ended uint64 `json:"ended"`
	// Journalled writes were acknowledged while the fabric was away. Replayed of them were
	// made when it was back, Overwritten were not, or not whole, and Waiting still are
	// kept.
	Journalled  uint64 `json:"journalled"`
	Replayed    uint64 `json:"replayed"`
	Overwritten uint64 `json:"overwritten"`
	Waiting     int64  `json:"waiting"`
	// Unrecorded is how often the history had not recorded in time what a write was to
	// take away: a compaction was put off, or an app's write was made all the same.
	Unrecorded uint64 `json:"unrecorded"`
	// Conflated is how many states slow watches were spared.
	Conflated uint64 `json:"conflated"`
	// Snapshots, Gaps and Caught are those of all replicas that are open.
	kv.ReplicaStats
}

type counters struct {
	writes, refused, retried, conflicts, compactions, mended, unreadable, ended, unrecorded, journalled, replayed, overwritten, conflated atomic.Uint64
}

// New makes the contexts of a realm, offline until Connected is called.
func New(cfg Config) *Contexts {
	c := &Contexts{cfg: cfg, log: cfg.Logger, bucket: kv.Contexts(cfg.Link, cfg.Realm), open: map[string]*shared{}, used: make(chan struct{}), since: time.Now()}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.bucket.Report(cfg.Alarms)
	if c.cfg.CompactAt == 0 {
		c.cfg.CompactAt = kv.CompactAt
	}
	c.outages.journal, c.outages.changed, c.outages.supposed = cfg.Journal, make(chan struct{}), map[string]*kv.Value{}
	c.locals.list = map[subjects.Token]local{}
	c.count.Store(-1)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if cfg.Directory != nil {
		c.keeper = newKeeper(c)
	}
	c.restore(cfg.Kept)
	c.wg.Go(c.supposeLater)
	c.wg.Go(c.sweep)
	return c
}

// Close ends all watches and replicas. Writes in flight are given up: they may
// have been made.
func (c *Contexts) Close() {
	c.mu.Lock()
	c.closed = true
	open, names, leader := slices.Collect(maps.Values(c.open)), c.names, c.leader
	c.mu.Unlock()
	c.cancel()
	for _, s := range open {
		s.close()
	}
	if names != nil {
		names.close()
	}
	if leader != nil {
		c.cfg.Link.Unsubscribe(leader)
	}
	c.wg.Wait()
}

// Connected says that the connection was made, or was lost.
func (c *Contexts) Connected(online bool) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	if online {
		c.since = time.Time{}
	} else if c.since.IsZero() {
		c.since = time.Now()
		c.wg.Go(c.supposeLater)
	}
	open, names := slices.Collect(maps.Values(c.open)), c.names
	follow := online && c.leader == nil
	if online {
		c.wg.Go(func() { c.verify(follow) })
		if c.keeper != nil {
			c.keep.Do(func() { c.wg.Go(c.keeper.run) })
		}
	}
	c.mu.Unlock()
	if c.keeper != nil {
		c.keeper.lost()
	}
	for _, s := range open {
		s.connected(online)
	}
	if names != nil {
		names.replica.Wake(online)
	}
}

// verify looks at the bucket's options, and listens to leader elections.
func (c *Contexts) verify(follow bool) {
	for {
		err := c.bucket.Verify(c.ctx)
		c.mu.Lock()
		c.usable = nil
		if isUnusable(err) {
			c.usable = err
		}
		c.mu.Unlock()
		if age, err := c.bucket.History().Age(c.ctx); err == nil {
			c.age.Store(int64(age))
		}
		if err == nil || !isUnusable(err) {
			break
		}
		c.log.ErrorContext(c.ctx, "contexts cannot be used", slog.Any("error", err))
		select {
		case <-time.After(verifyRetry):
		case <-c.ctx.Done():
			return
		}
	}
	if !follow {
		return
	}
	sub, err := c.bucket.FollowLeader(c.ctx, c.elected)
	if err != nil || sub == nil {
		return // the regular checks remain
	}
	c.mu.Lock()
	if c.leader == nil && !c.closed {
		c.leader, sub = sub, nil
	}
	c.mu.Unlock()
	if sub != nil {
		c.cfg.Link.Unsubscribe(sub)
	}
}

// elected makes all replicas look what the former leader did not tell.
func (c *Contexts) elected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(func() { c.bucket.Elected(c.ctx) })
	}
}

// online is nil, or why nothing can be written.
func (c *Contexts) online() error {
	if err := c.cfg.Link.Online(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errStopped()
	}
	return c.usable
}

func (c *Contexts) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

// Usable is nil, or why contexts cannot be read or written for now, as far as that was
// tried.
func (c *Contexts) Usable() error {
	if err := c.online(); err != nil {
		return err
	}
	c.mu.Lock()
	replicas := make([]*kv.Replica, 0, len(c.open)+1)
	for _, s := range c.open {
		replicas = append(replicas, s.replica)
	}
	if c.names != nil {
		replicas = append(replicas, c.names.replica)
	}
	c.mu.Unlock()
	for _, r := range replicas {
		if _, err := r.State(); err != nil {
			return err
		}
	}
	return nil
}

func errStopped() error { return wire.Errorf(wire.Offline, "the node has stopped") }

// await waits until a replica has its first snapshot, or why it cannot be had.
// After the fabric was away for a while suppose is called instead.
func (c *Contexts) await(ctx context.Context, r *kv.Replica, what string, suppose func()) error {
	for {
		select {
		case <-r.Ready():
			return nil
		default:
		}
		poll := awaitPoll
		if err := c.online(); err != nil {
			in, ok := c.supposes()
			switch {
			case !ok:
				return err
			case in <= 0:
				suppose()
				return nil
			}
			poll = in
		}
		_, failed := r.State()
		if isUnusable(failed) {
			return failed
		}
		select {
		case <-r.Ready():
		case <-time.After(poll):
		case <-ctx.Done():
			if failed == nil {
				failed = ctx.Err()
			}
			return wire.AsError(fmt.Errorf("%s: not read yet: %w", what, failed))
		case <-c.ctx.Done():
			return errStopped()
		}
	}
}

// get opens a context, which stays open while it is used: s.release.
func (c *Contexts) get(name string) (*shared, error) {
	token, err := subjects.Encode(name)
	if err != nil {
		return nil, wire.Errorf(wire.BadName, "context: %w", err)
	}
	if name == "" {
		return nil, wire.Errorf(wire.BadName, "a context needs a name")
	}
	s, made, err := c.use(name, token)
	if made {
		if in, ok := c.supposes(); ok && in <= 0 {
			s.suppose()
		}
	}
	return s, err
}

// use counts one use more of a context that is open, or opens it.
func (c *Contexts) use(name string, token subjects.Token) (s *shared, made bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, errStopped()
	}
	c.first.Do(func() { close(c.used) })
	if s = c.open[name]; s == nil {
		if len(c.open) >= wire.MaxContexts {
			return nil, false, wire.Errorf(wire.Limit, "contexts in use on this node: %d, the limit is %d", len(c.open)+1, wire.MaxContexts)
		}
		s, made = newShared(c, name, token), true
		c.open[name] = s
	}
	s.users.Add(1)
	return s, made, nil
}

// release ends one use of an open context. It takes no lock.
func (c *Contexts) release(s *shared) {
	s.used.Store(time.Now().UnixNano())
	s.users.Add(-1)
}

// sweep closes contexts that nobody has used for a while.
func (c *Contexts) sweep() {
	tick := time.NewTicker(idleFor / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		var idle []*shared
		c.mu.Lock()
		for name, s := range c.open {
			if s.users.Load() == 0 && time.Now().UnixNano()-s.used.Load() >= int64(idleFor) {
				idle = append(idle, s)
				delete(c.open, name)
			}
		}
		c.mu.Unlock()
		for _, s := range idle {
			s.close()
		}
	}
}

// Leave ends what an app watches and holds. The directory must not have it any
// more.
func (c *Contexts) Leave(app subjects.App) {
	c.mu.Lock()
	open, names := slices.Collect(maps.Values(c.open)), c.names
	c.mu.Unlock()
	for _, s := range open {
		s.leave(app)
	}
	if names != nil {
		names.leave(app)
	}
	if c.keeper != nil {
		c.keeper.leave(app)
	}
}

// Stats returns the counters.
func (c *Contexts) Stats() Stats {
	n := &c.stats
	st := Stats{
		Writes: n.writes.Load(), Refused: n.refused.Load(), Retried: n.retried.Load(), Conflicts: n.conflicts.Load(),
		Compactions: n.compactions.Load(), Mended: n.mended.Load(), Unreadable: n.unreadable.Load(), Ended: n.ended.Load(), Unrecorded: n.unrecorded.Load(),
		Journalled: n.journalled.Load(), Replayed: n.replayed.Load(), Overwritten: n.overwritten.Load(), Waiting: c.outages.waiting.Load(), Conflated: n.conflated.Load(),
	}
	c.mu.Lock()
	open := slices.Collect(maps.Values(c.open))
	c.mu.Unlock()
	st.Open = len(open)
	for _, s := range open {
		r := s.replica.Stats()
		st.Snapshots, st.Gaps, st.Caught = st.Snapshots+r.Snapshots, st.Gaps+r.Gaps, st.Caught+r.Caught
	}
	return st
}
