package gateway

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// kept is what the next run of a node finds.
func kept(t *testing.T, dir string) map[string]map[string]uint64 {
	t.Helper()
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	return j.load()
}

func same(a, b map[string]map[string]uint64) bool {
	return maps.EqualFunc(a, b, func(a, b map[string]uint64) bool { return maps.Equal(a, b) })
}

// TestJournal: the next run finds the last revision of each context, whatever happened
// to the end of the file.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for revision := uint64(1); revision <= 100; revision++ {
		j.note("a", "x", revision)
		j.note("b", "x", revision)
		j.note("b", fmt.Sprint(revision), revision)
		j.note("b", fmt.Sprint(revision), 0)
	}
	j.note("gone", "x", 1)
	j.drop("gone")
	j.note("empty", "x", 1)
	j.note("empty", "x", 0)
	if got := j.load(); len(got) != 2 {
		t.Errorf("remembers %v", got)
	}
	j.close()
	j.note("a", "x", 101) // nobody writes it any more
	want := map[string]map[string]uint64{"a": {"x": 100}, "b": {"x": 100}}
	if got := kept(t, dir); !same(got, want) {
		t.Fatalf("got %v", got)
	}
	path := filepath.Join(dir, "sent.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`not JSON
{"client":"a","context":"x","revision":102}
{"client":"a","context":"x","rev`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want["a"]["x"] = 102
	if got := kept(t, dir); !same(got, want) {
		t.Fatalf("torn: got %v", got)
	}
}

// TestJournalStaysSmall: what has been overwritten does not stay.
func TestJournalStaysSmall(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	large := uint64(0)
	for revision := uint64(1); revision <= 200_000; revision++ {
		j.note("a client", "a context", revision)
		large = revision
	}
	j.close()
	if got := kept(t, dir); got["a client"]["a context"] != large {
		t.Fatalf("got %v", got)
	}
	j, err = openJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	j.note("a client", "a context", large+1)
	j.close()
	info, err := os.Stat(filepath.Join(dir, "sent.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 1000 {
		t.Errorf("%d bytes", info.Size())
	}
}

// TestStaleJournal: the clients of a node that ended long ago have ended as well.
func TestStaleJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	j.note("a", "x", 1)
	j.close()
	long := time.Now().Add(-journalStale - time.Second)
	if err := os.Chtimes(filepath.Join(dir, "sent.jsonl"), long, long); err != nil {
		t.Fatal(err)
	}
	if got := kept(t, dir); len(got) > 0 {
		t.Fatalf("got %v", got)
	}
}
