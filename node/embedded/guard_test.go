package embedded_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weft-fabric/weft/node/embedded"
)

// TestKilledWhileOpening: nats-server had deleted a stream that it could not
// open when the process died; the links bring it back at the next start.
func TestKilledWhileOpening(t *testing.T) {
	for _, leftMeta := range []bool{true, false} {
		cfg := embedded.Config{Store: t.TempDir(), NoSync: true}
		s := start(t, cfg)
		_, js := inProcess(t, s)
		fill(t, js, "A", each)
		fill(t, js, "B", each)
		s.Shutdown()
		streams := filepath.Join(cfg.Store, "jetstream", "$G", "streams")
		opening := filepath.Join(cfg.Store, "jetstream.opening")
		if err := os.CopyFS(opening, os.DirFS(streams)); err != nil {
			t.Fatal(err)
		}
		if leftMeta {
			remove(t, streams, "A")
		} else { // the deletion itself was cut short
			remove(t, streams, "A", "meta.inf")
			remove(t, streams, "A", "msgs")
		}
		s = start(t, cfg)
		_, js = inProcess(t, s)
		if a, b := messages(t, js, "A"), messages(t, js, "B"); a != each || b != each || s.Damaged() != "" {
			t.Error(a, b, s.Damaged())
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.Store, "jetstream.*")); len(left) != 0 {
			t.Error("left behind:", left)
		}
		s.Shutdown()
	}
}
