//go:build unix

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-fabric/weft/node"
	"github.com/weft-fabric/weft/wire"
)

// TestFullDisk fills the disk of a node that is away from its cluster: what it cannot
// journal it refuses and shows to nobody, what it has acknowledged stays, and when there
// is room again it goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := newDisk(t, filepath.Join(t.TempDir(), "disk"))
	cfg := node.Config{
		Realm: "full", Node: "desk", Machine: "desk", Store: filepath.Join(disk.mounted, "store"),
		NATS: node.NATS{URL: nobody},
	}
	n, app := away(t, cfg)
	value := func(i int) map[string]any { return map[string]any{"v": i, "text": strings.Repeat("x", 4000)} }
	set := func(app *node.App, i int) (node.ContextAck, error) {
		return app.Contexts().Set(t.Context(), fmt.Sprint("context-", i), value(i))
	}
	for i := range 20 {
		if ack, err := set(app, i); err != nil || !ack.Journalled {
			t.Fatalf("with room: %+v, %v", ack, err)
		}
	}
	filler := filepath.Join(disk.mounted, "filler")
	fill(t, filler)
	refused := 0
	for i := 20; i < 60; i++ { // the last block of the journal may have room
		_, err := set(app, i)
		switch {
		case errors.Is(err, wire.ErrStorageFull):
			refused++
			if s, err := app.Contexts().Get(t.Context(), fmt.Sprint("context-", i)); err != nil || s.Exists {
				t.Errorf("what was refused shows: %+v, %v", s, err)
			}
		case err != nil:
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if refused < 30 {
		t.Errorf("%d of 40 writes were refused on a full disk", refused)
	}
	if s, err := app.Contexts().Get(t.Context(), "context-7"); err != nil || s.At("v").String() != "7" {
		t.Errorf("on a full disk: %+v, %v", s, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if ack, err := set(app, 100); err != nil || !ack.Journalled {
		t.Fatalf("with room again: %+v, %v", ack, err)
	}
	n.Stop()

	n, app = away(t, cfg)
	defer n.Stop()
	for _, i := range []int{0, 19, 100} {
		if s, err := app.Contexts().Get(t.Context(), fmt.Sprint("context-", i)); err != nil || s.At("v").String() != fmt.Sprint(i) {
			t.Errorf("after a restart context-%d is %+v, %v", i, s, err)
		}
	}
}

// away starts a node that reaches nobody, and an app on it.
func away(t *testing.T, cfg node.Config) (*node.Node, *node.App) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := node.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	app, err := n.Join(ctx, node.Identity{Application: "blotter"})
	if err != nil {
		t.Fatal(err)
	}
	return n, app
}

// fill writes until there is no room.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
