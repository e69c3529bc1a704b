package kv_test

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// The vectors are for implementations in other languages, too: test/clients
// reads them as well. Values and objects are text, so that no reader rounds a
// number before the test begins.

type foldVector struct {
	Name     string
	Entries  []foldEntry
	Exists   bool
	Object   *string
	Revision uint64
}

type foldEntry struct {
	Key           subjects.Key
	Seq           uint64
	Op            string
	JSON, Hex     *string
	AsOf, Compact uint64
	Marker        bool
}

func (f *foldEntry) entry(t *testing.T) kv.Entry {
	t.Helper()
	e := kv.Entry{Key: f.Key, Seq: f.Seq, AsOf: f.AsOf, Compact: f.Compact, Expired: f.Marker}
	switch {
	case f.Op == "del":
		e.Op = kv.Delete
	case f.Op == "purge":
		e.Op = kv.Purge
	case f.Op == "" && f.JSON != nil:
		e.Format, e.Value = wire.JSON, []byte(*f.JSON)
	case f.Op == "" && f.Hex != nil:
		data, err := hex.DecodeString(*f.Hex)
		if err != nil {
			t.Fatal(err)
		}
		e.Value = data
	default:
		t.Fatalf("%s: op %q", f.Key, f.Op)
	}
	return e
}

func TestFoldVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/fold.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []foldVector
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			if v.Exists != (v.Object != nil) {
				t.Fatal("exists and object disagree")
			}
			entries := make([]kv.Entry, len(v.Entries))
			keys := map[subjects.Key]bool{}
			for i := range v.Entries {
				entries[i] = v.Entries[i].entry(t)
				keys[entries[i].Key] = true
			}
			whole := kv.NewTree(subjects.MustEncode("client"))
			whole.Apply(entries, nil)
			v.check(t, "at once", whole)
			single := kv.NewTree(subjects.MustEncode("client"))
			for i := range entries {
				single.Apply(entries[i:i+1], nil)
			}
			v.check(t, "one by one", single)
			if len(keys) < len(entries) {
				return // a tree gets the writes of one key in their order
			}
			for range 20 {
				rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
				shuffled := kv.NewTree(subjects.MustEncode("client"))
				for i := range entries {
					shuffled.Apply(entries[i:i+1], nil)
				}
				v.check(t, "in any order", shuffled)
			}
		})
	}
}

func (v *foldVector) check(t *testing.T, how string, tree *kv.Tree) {
	t.Helper()
	if tree.Exists() != v.Exists || tree.Revision() != v.Revision {
		t.Errorf("%s: exists %v, revision %d; want %v, %d", how, tree.Exists(), tree.Revision(), v.Exists, v.Revision)
	}
	if v.Object == nil {
		if got := tree.View(); got != nil {
			t.Errorf("%s: %x of a context that does not exist", how, got.Payload().Data)
		}
		return
	}
	want, err := kv.ParseValue(wire.Payload{Format: wire.JSON, Data: []byte(*v.Object)})
	if err != nil {
		t.Fatal(err)
	}
	if got := tree.View(); !got.Equal(want) {
		text, _ := wire.AppendJSON(nil, got.Payload().Data)
		t.Errorf("%s: %s; want %s", how, text, *v.Object)
	}
}
