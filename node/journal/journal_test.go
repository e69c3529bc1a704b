package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weft-fabric/weft/wire"
)

func open(t *testing.T, path string, limit int64) (*Journal, []Record) {
	t.Helper()
	j, list, err := Open(path, limit, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, list
}

func text(list []Record) string {
	var b strings.Builder
	for _, r := range list {
		fmt.Fprintf(&b, "%d=%s ", r.Key, r.Data)
	}
	return strings.TrimSpace(b.String())
}

func write(t *testing.T, j *Journal, changes ...Change) {
	t.Helper()
	if err := j.Write(changes...); err != nil {
		t.Fatal(err)
	}
}

func put(key uint64, data string) Change { return Change{key, []byte(data)} }

func TestKeepsInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, list := open(t, path, DefaultLimit)
	if len(list) != 0 {
		t.Fatal("a new journal has records: ", text(list))
	}
	write(t, j, put(1, "a"), put(2, "b"))
	write(t, j, put(3, "c"))
	write(t, j, Change{Key: 1}, put(2, "B"), put(4, ""))
	write(t, j, Change{Key: 9})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Write(put(5, "x")); !errors.Is(err, wire.ErrOffline) {
		t.Fatal("write after close: ", err)
	}
	j, list = open(t, path, DefaultLimit)
	if got, want := text(list), "2=B 3=c 4="; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	if j.Len() != 3 {
		t.Fatal("Len: ", j.Len())
	}
	write(t, j, Change{Key: 2}, Change{Key: 3}, Change{Key: 4})
	if j.Bytes() != 0 || j.Len() != 0 {
		t.Fatal("not empty: ", j.Bytes(), j.Len())
	}
}

// Whatever of the last write has reached the disk, the ones before it are there, and it
// is there as a whole or not at all.
func TestTornTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path, DefaultLimit)
	write(t, j, put(1, "one"))
	write(t, j, put(2, "two"))
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, j, put(3, "three"), put(4, "four"), Change{Key: 1})
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := len(before); n <= len(all); n++ {
		for name, tail := range map[string][]byte{"cut": nil, "zeros": make([]byte, len(all)-n), "noise": bytes.Repeat([]byte{0xA5}, len(all)-n)} {
			torn := filepath.Join(t.TempDir(), "j")
			if err := os.WriteFile(torn, slices.Concat(all[:n], tail), 0o600); err != nil {
				t.Fatal(err)
			}
			want := "1=one 2=two"
			if n == len(all) {
				want = "2=two 3=three 4=four"
			}
			j, list := open(t, torn, DefaultLimit)
			if got := text(list); got != want {
				t.Fatalf("%s after %d of %d bytes: %q, want %q", name, n, len(all), got, want)
			}
			write(t, j, put(7, "seven")) // it goes on
			_ = j.Close()
			if _, list = open(t, torn, DefaultLimit); text(list) != want+" 7=seven" {
				t.Fatalf("%s after %d bytes, then a write: %q", name, n, text(list))
			}
		}
	}
}

// A flipped bit anywhere loses at most the frame that it is in, and is kept and told.
func TestFlippedBits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path, DefaultLimit)
	for key := range uint64(5) {
		write(t, j, put(key, strings.Repeat("x", int(key)+3)))
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		dir := t.TempDir()
		bad := filepath.Join(dir, "j")
		data := bytes.Clone(good)
		data[at] ^= 1 << (at % 8)
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, list := open(t, bad, DefaultLimit)
		if len(list) < 4 || at < len(header) && len(list) < 5 {
			t.Fatalf("bit %d of byte %d: only %q is left", at%8, at, text(list))
		}
		kept, err := filepath.Glob(filepath.Join(dir, "j.damaged-*"))
		if err != nil || len(kept) != 1 {
			t.Fatalf("byte %d: the damaged part was not kept: %v %v", at, kept, err)
		}
	}
}

func TestLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path, 1000)
	n := uint64(0)
	for ; ; n++ {
		err := j.Write(put(n, strings.Repeat("x", 70)))
		if errors.Is(err, wire.ErrStorageFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 8 || n > 11 {
		t.Fatal("records: ", n)
	}
	if err := j.Write(Change{Key: 0}, put(100, strings.Repeat("x", 70))); err != nil {
		t.Fatal("one out, one in: ", err)
	}
	if err := j.Write(put(101, strings.Repeat("x", 70))); !errors.Is(err, wire.ErrStorageFull) {
		t.Fatal("over the limit: ", err)
	}
	write(t, j, Change{Key: 1})
	write(t, j, put(102, "x"))
	_ = j.Close()
	_, list := open(t, path, 10) // a smaller limit loses nothing
	if len(list) != int(n) || list[len(list)-1].Key != 102 {
		t.Fatal("after reopening: ", text(list))
	}
}

// The file is bounded by what is in it, however much was written.
func TestFileStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path, DefaultLimit)
	data := strings.Repeat("x", 64<<10)
	for i := range uint64(200) {
		write(t, j, put(i, data), Change{Key: i - 2})
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > slack+8*64<<10 {
		t.Fatalf("%d bytes for 2 records of 64 KiB", fi.Size())
	}
	_ = j.Close()
	if _, list := open(t, path, DefaultLimit); len(list) != 2 || list[0].Key != 198 {
		t.Fatal("records: ", len(list))
	}
}

// A disk that does not work refuses the write, keeps what was there, and works again.
func TestBrokenDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "j")
	j, _ := open(t, path, DefaultLimit)
	write(t, j, put(1, "one"), put(2, "two"), put(5, "five"))
	_ = j.file.Close() // every use of it fails from now on
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := j.Write(put(3, "three")); !errors.Is(err, wire.ErrUnavailable) {
		t.Fatal("the disk is gone: ", err)
	}
	if err := j.Write(put(1, "ONE")); !errors.Is(err, wire.ErrUnavailable) {
		t.Fatal("the disk is gone: ", err)
	}
	if err := j.Write(Change{Key: 1}, put(6, "six")); !errors.Is(err, wire.ErrUnavailable) {
		t.Fatal("the disk is gone: ", err)
	}
	if err := j.Write(Change{Key: 2}); err != nil {
		t.Fatal("a delete: ", err)
	}
	if j.Len() != 2 {
		t.Errorf("%d records, what was refused is among them or 1 is not", j.Len())
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	write(t, j, put(4, "four"))
	_ = j.Close()
	if _, list := open(t, path, DefaultLimit); text(list) != "1=one 5=five 4=four" {
		t.Fatal("records: ", text(list))
	}
}

func TestConcurrentWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, _ := open(t, path, DefaultLimit)
	var wg sync.WaitGroup
	for w := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, w))
			for i := range uint64(50) {
				key := w<<32 | i
				if err := j.Write(put(key, fmt.Sprintf("%d.%d", w, i)), put(key|1<<16, "x")); err != nil {
					t.Error(err)
				}
				if r.IntN(2) == 0 {
					if err := j.Write(Change{Key: key | 1<<16}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	n := j.Len()
	_ = j.Close()
	_, list := open(t, path, DefaultLimit)
	if len(list) != n {
		t.Fatalf("%d records, %d before", len(list), n)
	}
	last := map[uint64]uint64{}
	for _, r := range list {
		if r.Key&(1<<16) != 0 {
			continue
		}
		w, i := r.Key>>32, r.Key&0xffff
		if string(r.Data) != fmt.Sprintf("%d.%d", w, i) || i > 0 && i != last[w]+1 {
			t.Fatalf("record %x is %q after %d", r.Key, r.Data, last[w])
		}
		last[w] = i
	}
	for w := range uint64(8) {
		if last[w] != 49 {
			t.Fatalf("writer %d: the last is %d", w, last[w])
		}
	}
}

func FuzzOpen(f *testing.F) {
	body := appendChange(appendChange(nil, put(1, "one")), Change{Key: 2})
	f.Add(append([]byte(header), appendFrame(nil, body)...))
	f.Add([]byte(magic))
	f.Add(append([]byte(magic), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, list, err := Open(path, DefaultLimit, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
		j, again, err := Open(path, DefaultLimit, nil)
		if err != nil || text(again) != text(list) {
			t.Fatalf("opened again: %q, before %q (%v)", text(again), text(list), err)
		}
		_ = j.Close()
	})
}

func BenchmarkWrite(b *testing.B) {
	j, _, err := Open(filepath.Join(b.TempDir(), "j"), DefaultLimit, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	data := bytes.Repeat([]byte("x"), 200)
	key := uint64(0)
	for b.Loop() {
		key++
		if err := j.Write(Change{key, data}, Change{Key: key - 1}); err != nil {
			b.Fatal(err)
		}
	}
}
