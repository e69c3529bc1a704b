package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/weft-fabric/weft/node/statedir"
	"github.com/weft-fabric/weft/wire"
)

const (
	header = "weft journal 1\n"
	magic  = "WJf1"
	// frameHead is magic, length and checksum.
	frameHead = len(magic) + 8
	putHead   = 1 + 8 + 4
	// slack is how large a file may be, however little of it is in use.
	slack = 1 << 20

	kindPut    = 1
	kindDelete = 2
)

// DefaultLimit is how many bytes the records of a journal may have together.
const DefaultLimit = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is what a journal keeps.
type Record struct {
	Key  uint64
	Data []byte
}

// Change puts a record or, without Data, deletes the one of its key. Deleting what is
// not there changes nothing.
type Change Record

// Journal is an open journal. Create it with [Open].
type Journal struct {
	path  string
	limit int64
	log   *slog.Logger

	mu       sync.Mutex
	records  map[uint64]*Record
	order    []uint64 // keys
	live     int64    // bytes of the records in frames of their own
	promised int64    // by how much that will grow with what is not on the disk yet
	closed   bool
	waiting  *commit // what the next sync is for
	writing  bool
	idle     *sync.Cond // nobody is writing

	// What follows belongs to who is writing.
	file   *os.File
	size   int64    // of the file, up to which it is good
	broken bool     // the file is to be written anew before anything else
	late   []Change // deletes that are not on the disk yet
	lost   []byte   // what could not be read, until it is kept in a file of its own
}

// commit is what goes to the disk together.
type commit struct {
	deletes []Change // of who only deletes
	changes []Change // of the others
	growth  int64    // by changes
	done    chan struct{}
	err     error
}

// Open opens or makes a journal whose records may have limit bytes together, and returns
// the records in the order in which they were first put. Damage is logged. A disk that can
// be read but not written is no error: writes are refused until it can.
func Open(path string, limit int64, log *slog.Logger) (*Journal, []Record, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{path: path, limit: limit, log: log, records: map[uint64]*Record{}}
	j.idle = sync.NewCond(&j.mu)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	if j.lost = j.load(data); len(j.lost) > 0 {
		log.Error("a part of the journal cannot be read", slog.String("journal", path), slog.Int("bytes", len(j.lost)))
	}
	if err := j.rewrite(); err != nil {
		log.Warn("the journal cannot be written for now", slog.String("journal", path), slog.Any("error", err))
	}
	list := make([]Record, 0, len(j.records))
	for _, key := range j.order {
		list = append(list, *j.records[key])
	}
	return j, list, nil
}

// load reads what a file holds and returns what cannot be read.
func (j *Journal) load(data []byte) (lost []byte) {
	if len(data) == 0 {
		return nil
	}
	rest, ok := bytes.CutPrefix(data, []byte(header))
	if !ok {
		rest = data // frames are found all the same
		lost = append(lost, data[:min(len(header), len(data))]...)
	}
	for len(rest) > 0 {
		body, n := frame(rest)
		if n > 0 && j.apply(body) {
			rest = rest[n:]
			continue
		}
		skip := len(rest)
		if i := bytes.Index(rest[1:], []byte(magic)); i >= 0 {
			skip = i + 1
		}
		lost = append(lost, rest[:skip]...)
		rest = rest[skip:]
	}
	return lost
}

// frame reads the frame that data begins with; n is 0 if there is none.
func frame(data []byte) (body []byte, n int) {
	if len(data) < frameHead || string(data[:len(magic)]) != magic {
		return nil, 0
	}
	length := binary.BigEndian.Uint32(data[4:])
	if int64(length) > int64(len(data)-frameHead) {
		return nil, 0
	}
	n = frameHead + int(length)
	body = data[frameHead:n]
	if binary.BigEndian.Uint32(data[8:]) != checksum(length, body) {
		return nil, 0
	}
	return body, n
}

func checksum(length uint32, body []byte) uint32 {
	sum := crc32.Checksum(binary.BigEndian.AppendUint32(nil, length), castagnoli)
	return crc32.Update(sum, castagnoli, body)
}

func appendFrame(dst, body []byte) []byte {
	dst = append(dst, magic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.BigEndian.AppendUint32(dst, checksum(uint32(len(body)), body))
	return append(dst, body...)
}

// apply takes the changes of a frame; false if it is none, and then nothing is changed.
func (j *Journal) apply(body []byte) bool {
	changes, ok := parse(body)
	if ok {
		j.change(changes)
	}
	return ok
}

func parse(body []byte) (changes []Change, ok bool) {
	for len(body) > 0 {
		switch {
		case body[0] == kindDelete && len(body) >= 9:
			changes = append(changes, Change{Key: binary.BigEndian.Uint64(body[1:])})
			body = body[9:]
		case body[0] == kindPut && len(body) >= putHead:
			n := int64(binary.BigEndian.Uint32(body[9:]))
			if n > int64(len(body)-putHead) {
				return nil, false
			}
			end := putHead + int(n)
			changes = append(changes, Change{Key: binary.BigEndian.Uint64(body[1:]), Data: slices.Clone(body[putHead:end])})
			body = body[end:]
		default:
			return nil, false
		}
	}
	return changes, true
}

func appendChange(dst []byte, c Change) []byte {
	if c.Data == nil {
		return binary.BigEndian.AppendUint64(append(dst, kindDelete), c.Key)
	}
	dst = binary.BigEndian.AppendUint64(append(dst, kindPut), c.Key)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(c.Data)))
	return append(dst, c.Data...)
}

func cost(data []byte) int64 { return int64(frameHead + putHead + len(data)) }

// change brings the records up to date. mu is held.
func (j *Journal) change(changes []Change) {
	deleted := false
	for _, c := range changes {
		old := j.records[c.Key]
		if old != nil {
			j.live -= cost(old.Data)
		}
		switch {
		case c.Data == nil:
			delete(j.records, c.Key)
			deleted = deleted || old != nil
			continue
		case old == nil && !(deleted && slices.Contains(j.order, c.Key)):
			j.order = append(j.order, c.Key)
		}
		r := Record(c)
		j.records[c.Key] = &r
		j.live += cost(c.Data)
	}
	if deleted {
		j.order = slices.DeleteFunc(j.order, func(key uint64) bool { return j.records[key] == nil })
	}
}

// Write makes changes, all or none, and returns when they are on the disk. The error is
// storage-full where there is no room, and unavailable where the disk does not work.
// Changes that only delete are always made, on the disk as soon as that works. A key must
// not be changed by two calls at a time.
func (j *Journal) Write(changes ...Change) error {
	if len(changes) == 0 {
		return nil
	}
	puts := slices.ContainsFunc(changes, func(c Change) bool { return c.Data != nil })
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return wire.Errorf(wire.Offline, "the journal is closed")
	}
	growth := j.growth(changes)
	if n := j.live + j.promised + growth; growth > 0 && n > j.limit {
		j.mu.Unlock()
		return wire.Errorf(wire.StorageFull, "the journal would have %d bytes, the limit is %d", n, j.limit)
	}
	c := j.waiting
	if c == nil {
		c = &commit{done: make(chan struct{})}
		j.waiting = c
	}
	if puts {
		c.changes, c.growth, j.promised = append(c.changes, changes...), c.growth+growth, j.promised+growth
	} else {
		c.deletes = append(c.deletes, changes...)
	}
	flush := !j.writing
	j.writing = true
	j.mu.Unlock()
	if flush {
		j.flush()
	}
	<-c.done
	if puts {
		return c.err
	}
	return nil
}

// growth is by how many bytes changes make the records larger. mu is held.
func (j *Journal) growth(changes []Change) (n int64) {
	for _, c := range changes {
		if c.Data != nil {
			n += cost(c.Data)
		}
		if old := j.records[c.Key]; old != nil {
			n -= cost(old.Data)
		}
	}
	return n
}

// flush writes what waits until nothing does.
func (j *Journal) flush() {
	for {
		j.mu.Lock()
		c := j.waiting
		if c == nil {
			j.writing = false
			j.idle.Broadcast()
			j.mu.Unlock()
			return
		}
		j.waiting = nil
		live := j.live + c.growth + j.growth(c.deletes)
		j.mu.Unlock()
		var err error
		if j.broken || live == 0 || j.size > 2*live+slack {
			err = j.rewriteWith(c)
		} else {
			err = j.appendWith(c)
		}
		j.late = append(j.late, c.deletes...)
		if err == nil {
			j.late = nil
		}
		c.err = typed(err)
		close(c.done)
	}
}

// appendWith puts a commit at the end of the file. What only deletes is done in any case.
func (j *Journal) appendWith(c *commit) error {
	changes := slices.Concat(j.late, c.deletes, c.changes)
	var body []byte
	for _, x := range changes {
		body = appendChange(body, x)
	}
	err := j.append(body)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.promised -= c.growth
	if err != nil {
		changes = c.deletes
	}
	j.change(changes)
	return err
}

// rewriteWith puts a commit in a new file. What only deletes is done in any case.
func (j *Journal) rewriteWith(c *commit) error {
	j.mu.Lock()
	j.change(c.deletes)
	records, order, live := maps.Clone(j.records), slices.Clone(j.order), j.live
	j.change(c.changes)
	j.promised -= c.growth
	j.mu.Unlock()
	err := j.rewrite()
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.records, j.order, j.live = records, order, live
	}
	return err
}

// append adds one frame to the file.
func (j *Journal) append(body []byte) error {
	data := appendFrame(nil, body)
	_, err := j.file.WriteAt(data, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		j.size += int64(len(data))
		return nil
	}
	// A frame whose writer was told that it failed must not be found there, and after a
	// failed sync nobody knows what is.
	if terr := j.file.Truncate(j.size); terr != nil || j.file.Sync() != nil {
		j.broken = true
	}
	return err
}

// rewrite makes a new file of the records.
func (j *Journal) rewrite() error {
	j.mu.Lock()
	data := []byte(header)
	for _, key := range j.order {
		data = appendFrame(data, appendChange(nil, Change(*j.records[key])))
	}
	j.mu.Unlock()
	j.broken = true
	if len(j.lost) > 0 {
		to := j.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
		if err := statedir.Replace(to, j.lost); err != nil {
			return err
		}
		j.log.Error("the damaged part of the journal is kept", slog.String("file", to))
		j.lost = nil
	}
	if j.file != nil { // or Windows would not let go of the name
		_ = j.file.Close() // nothing of it is needed any more
		j.file = nil
	}
	if err := statedir.Replace(j.path, data); err != nil {
		return err
	}
	file, err := os.OpenFile(j.path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	j.file, j.size, j.broken = file, int64(len(data)), false
	return nil
}

// Bytes is how much of the limit is in use.
func (j *Journal) Bytes() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.live
}

// Len is how many records there are.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.records)
}

// Close waits for writes that are under way and closes the file. What was written stays.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	for j.writing {
		j.idle.Wait()
	}
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
