//go:build linux

package faults_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/weft-fabric/weft/test/cluster"
)

const (
	diskSize      = 256 << 20
	powerContexts = 12
	powerWriters  = 6
	// leastAcks is how many acknowledgements a cut must have to be worth something.
	leastAcks = 100
)

// TestPowerCut cuts the power of a node with the embedded default while apps write:
// nothing that was acknowledged may be missing afterwards.
func TestPowerCut(t *testing.T) { powerCuts(t, 2, deskConfig{}) }

// TestPowerCutOffline is the same of a node whose fabric is away, and which keeps what
// it acknowledges in its journal.
func TestPowerCutOffline(t *testing.T) { powerCuts(t, 1, deskConfig{NATS: nobody}) }

// nobody is where no server listens.
const nobody = "nats://127.0.0.1:1"

// TestPowerCutNoSync is the control: with NATS's own default, which syncs every two
// minutes, the same rig must find that acknowledged writes are lost.
func TestPowerCutNoSync(t *testing.T) {
	t.Parallel()
	c := powerCut(t, rand.New(rand.NewPCG(powerSeed(t), 0)), deskConfig{NoSync: true})
	if c.lost == 0 {
		t.Errorf("nothing of %d acknowledged writes was lost without sync: the rig does not cut the power", c.acked)
	}
	t.Logf("without sync %d of %d acknowledged paths are lost, in %s", c.lost, c.acked, c.took.Round(time.Millisecond))
}

func powerSeed(t *testing.T) uint64 {
	seed := cluster.Setting(t, "SEED", time.Now().UnixNano()%1e9)
	t.Logf("SEED=%d", seed)
	return uint64(seed)
}

func powerCuts(t *testing.T, n int, cfg deskConfig) {
	t.Parallel()
	seed := powerSeed(t)
	acked := 0
	var took time.Duration
	for i := range n {
		c := powerCut(t, rand.New(rand.NewPCG(seed, uint64(i))), cfg)
		for _, what := range c.missing {
			t.Errorf("cut %d: %s", i+1, what)
		}
		acked, took = acked+c.acked, took+c.took
	}
	t.Logf("%d power cuts, %s each: all of %d acknowledged paths are there", n, (took / time.Duration(n)).Round(time.Millisecond), acked)
}

// cut is what one power cut did.
type cut struct {
	acked, lost int
	missing     []string // what is lost, or was never written, at most some
	took        time.Duration
}

// registers is what writers were told of their paths, each of which has one writer
// that counts.
type registers struct {
	mu      sync.Mutex
	file    *os.File // every acknowledgement, synced
	started map[[2]string]int
	acked   map[[2]string]int
	acks    int
	enough  chan struct{} // closed at leastAcks
}

func powerCut(t *testing.T, rng *rand.Rand, cfg deskConfig) (c cut) {
	t.Helper()
	began := time.Now()
	dir := t.TempDir()
	disk := newDisk(t, filepath.Join(dir, "disk"))
	cfg.Realm, cfg.Node, cfg.CompactAt, cfg.Store = "power", "desk", 24, filepath.Join(disk.mounted, "store")
	d, err := startDesk(t, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(dir, "acks"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	regs := &registers{file: file, started: map[[2]string]int{}, acked: map[[2]string]int{}, enough: make(chan struct{})}
	var writers sync.WaitGroup
	for i := range powerWriters {
		writers.Go(func() { regs.write(t, d, i, cfg.NATS == nobody) })
	}
	select {
	case <-regs.enough:
	case <-time.After(soon):
		t.Fatalf("no %d acknowledgements within %s", leastAcks, soon)
	}
	<-time.After(time.Duration(rng.IntN(700)) * time.Millisecond) // the moment is the rig's to choose
	if !d.freeze() {
		t.Fatal("there is nothing to cut the power of")
	}
	after := disk.copy(t, filepath.Join(dir, "after"))
	d.kill()
	writers.Wait()
	disk.unmount()

	after.mount(t)
	cfg.Store = filepath.Join(after.mounted, "store")
	if d, err = startDesk(t, cfg, nil); err != nil {
		t.Fatal(err)
	}
	regs.check(t, d, &c)
	d.kill()
	after.unmount()
	c.took = time.Since(began)
	return c
}

// write counts up paths of its own until the process ends.
func (r *registers) write(t *testing.T, d *peer, writer int, offline bool) {
	for n := 1; ; n++ {
		name := fmt.Sprint("context-", (n*7+writer)%powerContexts)
		var edits []edit
		for k := range 1 + n%3 {
			edits = append(edits, edit{Path: []string{fmt.Sprint("w", writer), fmt.Sprint("k", (n+k)%10)}, Value: json.RawMessage(fmt.Sprint(n))})
		}
		r.mu.Lock()
		for _, e := range edits {
			r.started[[2]string{name, e.Path[0] + "/" + e.Path[1]}] = n
		}
		r.mu.Unlock()
		a, err := d.ask(request{Do: "write", App: writer % deskApps, Context: name, Kind: "paths", Edits: edits})
		if err == nil && a.Ack.Journalled != offline {
			t.Errorf("a write is acknowledged as %+v, the fabric is away: %v", a.Ack, offline)
		}
		if err != nil {
			if d.alive() {
				t.Errorf("a write is refused: %v", err)
			}
			return
		}
		r.ack(t, name, edits, n)
	}
}

// ack keeps an acknowledgement where no power goes away.
func (r *registers) ack(t *testing.T, name string, edits []edit, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range edits {
		path := e.Path[0] + "/" + e.Path[1]
		r.acked[[2]string{name, path}] = n
		if _, err := fmt.Fprintln(r.file, name, path, n); err != nil {
			t.Error(err)
		}
	}
	if err := r.file.Sync(); err != nil {
		t.Error(err)
	}
	if r.acks++; r.acks == leastAcks {
		close(r.enough)
	}
}

// check holds what a node that started again has against what was acknowledged.
func (r *registers) check(t *testing.T, d *peer, c *cut) {
	t.Helper()
	contexts := map[string]map[string]map[string]int{}
	for i := range powerContexts {
		name := fmt.Sprint("context-", i)
		a, err := d.ask(request{Do: "get", Context: name})
		if err != nil {
			t.Fatalf("get %s: %v", name, err)
		}
		var object map[string]map[string]int
		if a.State.Exists {
			if err := json.Unmarshal(a.State.Value, &object); err != nil {
				t.Fatal(err)
			}
		}
		contexts[name] = object
	}
	c.acked = len(r.acked)
	for key, n := range r.started {
		var writer, path string
		writer, path = key[1][:2], key[1][3:]
		switch got := contexts[key[0]][writer][path]; {
		case got < r.acked[key]:
			c.lost++
			c.complain("%s of %s is %d, %d was acknowledged", key[1], key[0], got, r.acked[key])
		case got > n:
			c.complain("%s of %s is %d, which nobody wrote", key[1], key[0], got)
		}
	}
}

func (c *cut) complain(format string, args ...any) {
	if len(c.missing) < 10 {
		c.missing = append(c.missing, fmt.Sprintf(format, args...))
	}
}

// disk is a file with an ext4 filesystem, which is mounted. What has not been
// written to the filesystem's device yet is not in the file, as with a real disk.
type disk struct {
	image, mounted string
	t              *testing.T
	isMounted      bool
}

func newDisk(t *testing.T, name string) *disk {
	t.Helper()
	d := &disk{t: t, image: name + ".img", mounted: name}
	f, err := os.Create(d.image)
	if err == nil {
		err = f.Truncate(diskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	command(t, "mkfs.ext4", "-q", "-F", d.image)
	d.mount(t)
	return d
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(d.mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	undertaker.note(t, "umount %s", d.mounted)
	command(t, "mount", "-o", "loop", d.image, d.mounted)
	d.isMounted = true
	t.Cleanup(d.unmount)
}

func (d *disk) unmount() {
	if !d.isMounted {
		return
	}
	d.isMounted = false
	command(d.t, "umount", d.mounted)
	undertaker.note(d.t, "-umount %s", d.mounted)
}

// copy is what a power cut leaves.
func (d *disk) copy(t *testing.T, name string) *disk {
	t.Helper()
	after := &disk{t: t, image: name + ".img", mounted: name}
	command(t, "cp", "--sparse=always", d.image, after.image)
	return after
}

// command runs a tool of the rig. That it cannot run is a failure: a power cut that
// was not tried has not been survived.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("THE POWER-CUT RIG CANNOT RUN HERE: %s %v: %v: %s\nIt needs Linux, root, loop devices and mkfs.ext4; a container needs --privileged.", name, args, err, out)
	}
}
