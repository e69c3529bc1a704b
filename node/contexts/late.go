package contexts

import (
	"slices"
	"time"

	"github.com/weft-fabric/weft/subjects"
)

// lateFor is how long a node remembers that it has learned of a write too late.
const lateFor = 10 * time.Minute

// lateness is that the node learned of writes, the oldest of revision from, when it had
// reached upTo already: NATS had lost them on their way. What an app had read at a
// revision from from to upTo, before this was for the n-th time, may have been without them.
type lateness struct {
	n, from, upTo uint64
	at            time.Time
}

// learnsLate notes that what apps may have read had a hole. mu is held.
func (s *shared) learnsLate(from, upTo uint64) {
	s.late = slices.DeleteFunc(s.late, lateness.isOver)
	s.lates++
	s.late = append(s.late, lateness{s.lates, from, upTo, time.Now()})
}

func (l lateness) isOver() bool { return time.Since(l.at) >= lateFor }

// reads notes what an app reads: a state as of when lates was n. mu is held.
func (s *shared) reads(app subjects.App, n uint64) {
	if n == 0 {
		return
	}
	if s.read == nil {
		s.read = map[subjects.App]uint64{}
	}
	s.read[app] = max(s.read[app], n)
}

// isLate says whether the app of a conditional write may have read the context without
// something that is older than the revision which it names. mu is held.
func (s *shared) isLate(o *op) bool {
	return slices.ContainsFunc(s.late, func(l lateness) bool {
		return o.read < l.n && l.from <= *o.ifRevision && *o.ifRevision <= l.upTo && !l.isOver()
	})
}
