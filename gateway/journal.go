package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// journalBytes is how large a journal gets before it is written anew.
	journalBytes = 4 << 20
	// journalAlive is how often the journal of a node that runs is touched, and
	// journalStale how old one may be for its clients to be the same still.
	journalAlive = 10 * time.Second
	journalStale = 10 * time.Minute
)

// journal keeps what clients were last sent, by revision, for the next run of the
// node. It is written behind the clients' backs and not synced: it has to survive
// the end of the process, not of the machine, for then the clients end as well.
type journal struct {
	path string // "" keeps nothing
	log  *slog.Logger
	done chan struct{}

	mu      sync.Mutex
	live    map[string]map[string]uint64 // revision by context, by client
	pending []record
	wake    chan struct{}
	closed  bool
}

// record says that a client has a context as of a revision; 0 is not any more, and
// without a context the client is forgotten.
type record struct {
	Client   string `json:"client"`
	Context  string `json:"context,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
}

// openJournal opens the journal in a directory, "" for none.
func openJournal(dir string, log *slog.Logger) (*journal, error) {
	j := &journal{log: log, done: make(chan struct{}), live: map[string]map[string]uint64{}, wake: make(chan struct{}, 1)}
	if dir == "" {
		close(j.done)
		return j, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j.path = filepath.Join(dir, "sent.jsonl")
	data, err := readJournal(j.path)
	if err != nil {
		return nil, err
	}
	for line := range bytesLines(data) {
		var r record
		if json.Unmarshal(line, &r) == nil { // the last one may be torn
			j.apply(r)
		}
	}
	go j.run() // ends with close
	return j, nil
}

// readJournal reads a journal that is not stale.
func readJournal(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) > journalStale {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// bytesLines yields the lines of a file.
func bytesLines(data []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		start := 0
		for i, c := range data {
			if c == '\n' {
				if !yield(data[start:i]) {
					return
				}
				start = i + 1
			}
		}
	}
}

// load is what an earlier run has left.
func (j *journal) load() map[string]map[string]uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	was := map[string]map[string]uint64{}
	for client, contexts := range j.live {
		was[client] = maps.Clone(contexts)
	}
	return was
}

func (j *journal) note(client, context string, revision uint64) {
	j.put(record{client, context, revision})
}

func (j *journal) drop(client string) { j.put(record{Client: client}) }

func (j *journal) put(r record) {
	if j.path == "" {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.apply(r)
	j.pending = append(j.pending, r)
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// apply changes what is known. mu is held, or nobody else is there.
func (j *journal) apply(r record) {
	contexts := j.live[r.Client]
	switch {
	case r.Context == "":
		delete(j.live, r.Client)
	case r.Revision == 0:
		if delete(contexts, r.Context); len(contexts) == 0 {
			delete(j.live, r.Client)
		}
	case contexts == nil:
		j.live[r.Client] = map[string]uint64{r.Context: r.Revision}
	default:
		contexts[r.Context] = r.Revision
	}
}

// close writes what is pending.
func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
	<-j.done
}

// run writes. A journal that cannot be written costs clients their memory over a
// restart and nothing else.
func (j *journal) run() {
	defer close(j.done)
	alive := time.NewTicker(journalAlive)
	defer alive.Stop()
	var file *os.File
	defer func() {
		if file != nil {
			_ = file.Close() // nothing is lost by it
		}
	}()
	size := 0
	for {
		select {
		case <-j.wake:
		case now := <-alive.C:
			if file != nil {
				_ = os.Chtimes(j.path, now, now) // or it gets stale
			}
			continue
		}
		j.mu.Lock()
		records, closed := j.pending, j.closed
		j.pending = nil
		whole := file == nil || size > journalBytes
		if whole {
			records = j.all()
		}
		j.mu.Unlock()
		var err error
		if whole {
			file, size, err = anew(file, j.path, records)
		} else {
			var n int
			n, err = write(file, records)
			size += n
		}
		if err != nil {
			j.log.Warn("what clients were sent is not kept for a restart", slog.Any("error", err))
			j.mu.Lock()
			j.closed, j.pending = true, nil
			j.mu.Unlock()
			return
		}
		if closed {
			return
		}
	}
}

// all is everything that is known as records. mu is held.
func (j *journal) all() []record {
	var list []record
	for client, contexts := range j.live {
		for context, revision := range contexts {
			list = append(list, record{client, context, revision})
		}
	}
	return list
}

// anew puts a file with these records in the place of the old one, and opens it.
func anew(old *os.File, path string, records []record) (file *os.File, size int, err error) {
	if old != nil {
		if err := old.Close(); err != nil {
			return nil, 0, err
		}
	}
	var text bytes.Buffer
	if size, err = write(&text, records); err != nil {
		return nil, 0, err
	}
	if err := os.WriteFile(path+".new", text.Bytes(), 0o600); err != nil {
		return nil, 0, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, 0, err
	}
	file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	return file, size, err
}

func write(file io.Writer, records []record) (n int, err error) {
	w := bufio.NewWriter(file)
	for _, r := range records {
		line, err := json.Marshal(r)
		if err != nil {
			return n, err
		}
		m, err := w.Write(append(line, '\n'))
		if n += m; err != nil {
			return n, err
		}
	}
	return n, w.Flush()
}
