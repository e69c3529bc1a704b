package kv_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/kv"
	"github.com/weft-fabric/weft/link"
	"github.com/weft-fabric/weft/subjects"
	"github.com/weft-fabric/weft/wire"
)

// TestProvision: both buckets, as asked for; again changes nothing; what an
// operator chose stays; what somebody broke is mended; data is kept.
func TestProvision(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, b, js := bucket(t)
		ctx := within(t, time.Minute)
		if err := b.Verify(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Put(ctx, "n.x", []byte("kept"), 0); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]jetstream.StreamConfig{
			"KV_weft_desk_dir": kv.DirectoryConfig(realm, 1), "KV_weft_desk_ctx": kv.ContextConfig(realm, 1),
		} {
			s, err := js.Stream(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			c := s.CachedInfo().Config
			if c.Storage != want.Storage || c.MaxMsgsPerSubject != want.MaxMsgsPerSubject || c.AllowMsgSchedules != want.AllowMsgSchedules ||
				c.AllowAtomicPublish != want.AllowAtomicPublish || c.Discard != want.Discard || *c.RePublish != *want.RePublish || !c.AllowDirect || !c.AllowMsgTTL || !c.AllowRollup {
				t.Errorf("%s is %+v", name, c)
			}
			c.MaxBytes, c.Duplicates, c.Metadata, c.MaxMsgSize, c.MaxConsumers = 64<<20, time.Minute, map[string]string{"owner": "ann"}, 1<<20, 20_000
			c.MaxMsgsPerSubject, c.RePublish = 5, nil
			if _, err := js.UpdateStream(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Verify(ctx); !errors.Is(err, kv.ErrNotProvisioned) {
			t.Errorf("broken: %v", err)
		}
		for range 2 {
			if err := kv.Provision(ctx, h.conn(t), realm, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Verify(ctx); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"KV_weft_desk_dir", "KV_weft_desk_ctx"} {
			s, err := js.Stream(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			if c := s.CachedInfo().Config; c.MaxBytes != 64<<20 || c.Duplicates != time.Minute || c.Metadata["owner"] != "ann" || c.MaxMsgSize != 1<<20 || c.MaxConsumers != 20_000 {
				t.Errorf("the operator's choice is lost: %+v", c)
			}
		}
		if e, ok, err := b.Get(ctx, "n.x"); !ok || string(e.Value) != "kept" {
			t.Errorf("got %+v, %v, %v", e, ok, err)
		}
	})
}

// TestVerify: each option that matters is named, with the command that mends it.
func TestVerify(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b, js := bucket(t)
		ctx := within(t, time.Hour)
		const name = "KV_weft_desk_dir"
		tests := map[string]func(*jetstream.StreamConfig){
			"storage":   func(c *jetstream.StreamConfig) { c.Storage = jetstream.FileStorage },
			"retention": func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
			"subjects":  func(c *jetstream.StreamConfig) { c.Subjects = []string{"$KV.weft_desk_dir.n.>"} },
			"max_age":   func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = time.Hour, time.Minute },
			"max_msgs":  func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
			"discard":   func(c *jetstream.StreamConfig) { c.Discard, c.AllowMsgSchedules = jetstream.DiscardNew, false },
			"deny_purge": func(c *jetstream.StreamConfig) {
				c.DenyPurge, c.AllowRollup, c.AllowMsgSchedules, c.SubjectDeleteMarkerTTL = true, false, false, 0
			},
			"allow_direct": func(c *jetstream.StreamConfig) { c.AllowDirect = false },
			"allow_msg_ttl": func(c *jetstream.StreamConfig) {
				c.AllowMsgTTL, c.AllowMsgSchedules, c.SubjectDeleteMarkerTTL = false, false, 0
			},
			"allow_rollup_hdrs": func(c *jetstream.StreamConfig) {
				c.AllowRollup, c.AllowMsgSchedules, c.SubjectDeleteMarkerTTL = false, false, 0
			},
			"allow_atomic":         func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = true },
			"allow_msg_schedules":  func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = false },
			"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 2 },
			"republish is off":     func(c *jetstream.StreamConfig) { c.RePublish = nil },
			"republish source":     func(c *jetstream.StreamConfig) { c.RePublish.Source = "$KV.weft_desk_dir.>" },
			"republish destination": func(c *jetstream.StreamConfig) {
				c.RePublish.Destination = "weft.desk.kv.other.>"
				c.RePublish.Source = "$KV.weft_desk_dir.>"
			},
			"republish headers_only": func(c *jetstream.StreamConfig) { c.RePublish.HeadersOnly = true },
			"max_consumers":          func(c *jetstream.StreamConfig) { c.MaxConsumers = 100 },
		}
		for option, spoil := range tests {
			if err := js.DeleteStream(ctx, name); err != nil {
				t.Fatal(err)
			}
			c := kv.DirectoryConfig(realm, 1)
			spoil(&c)
			if _, err := js.CreateStream(ctx, c); err != nil {
				t.Fatalf("%s: %v", option, err)
			} else if err := b.Verify(ctx); !errors.Is(err, kv.ErrNotProvisioned) || !errors.Is(err, wire.ErrUnavailable) ||
				!strings.Contains(err.Error(), option) || !strings.Contains(err.Error(), "weft admin provision desk") {
				t.Errorf("%s: got %v", option, err)
			}
		}
		if err := js.DeleteStream(ctx, name); err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(ctx); !errors.Is(err, kv.ErrNotProvisioned) || !strings.Contains(err.Error(), "weft admin provision desk") {
			t.Errorf("missing: %v", err)
		}
		c := kv.DirectoryConfig(realm, 1)
		c.MaxBytes, c.Duplicates, c.MaxConsumers = 1<<30, time.Minute, 50_000
		if _, err := js.CreateStream(ctx, c); err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(ctx); err != nil {
			t.Errorf("what an operator may choose: %v", err)
		}
	})
}

// Storage cannot be changed: the message says what to do.
func TestProvisionOverOtherStorage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{JetStream: true})
		nc := h.conn(t)
		c := kv.ContextConfig(realm, 1)
		c.Storage = jetstream.MemoryStorage
		if _, err := stream(t, nc).CreateStream(within(t, time.Minute), c); err != nil {
			t.Fatal(err)
		}
		if err := kv.Provision(within(t, time.Minute), nc, realm, 1); !errors.Is(err, kv.ErrNotProvisioned) || !strings.Contains(err.Error(), "nats stream rm KV_weft_desk_ctx") {
			t.Errorf("got %v", err)
		}
	})
}

func TestServerWithoutJetStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := start(t, server.Options{})
		for name, err := range map[string]error{
			"verify": kv.Directory(h.link(t), realm).Verify(within(t, time.Minute)), "provision": kv.Provision(within(t, time.Minute), h.conn(t), realm, 1),
		} {
			if !errors.Is(err, kv.ErrNotProvisioned) || !errors.Is(err, wire.ErrUnavailable) || !strings.Contains(err.Error(), "JetStream") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

func TestServerTooOld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, _, _ := bucket(t)
		version := []byte(`"version":"` + server.VERSION + `"`)
		p := &proxy{h, func(down []byte) []byte { return bytes.Replace(down, version, []byte(`"version":"2.11.9"`), 1) }}
		l, err := link.Open(t.Context(), link.Config{Node: "a", Options: []nats.Option{nats.InProcessServer(p)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		for name, err := range map[string]error{"verify": kv.Directory(l, realm).Verify(within(t, time.Minute)), "provision": kv.Provision(within(t, time.Minute), l.Conn(), realm, 1)} {
			if !errors.Is(err, wire.ErrVersion) || !strings.Contains(err.Error(), "2.11.9") || !strings.Contains(err.Error(), "2.12") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// What permissions forbid is denied, at once where a link asks.
func TestWithoutPermission(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inbox := &server.SubjectPermission{Allow: []string{"_INBOX.>", "_R.a.>"}}
		h := start(t, server.Options{JetStream: true, Users: []*server.User{
			{Username: "a", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"none"}}, Subscribe: inbox}},
		}})
		login := nats.UserInfo("a", "x")
		b := kv.Directory(h.link(t, login), realm)
		began, ctx := time.Now(), within(t, time.Hour)
		_, put := b.Put(ctx, "n.a", nil, 0)
		_, _, get := b.Get(ctx, "n.a")
		_, last := b.Last(ctx, "n.>")
		_, snap := b.Snapshot(ctx, "n.>")
		_, follow := b.Follow(ctx, "n.>", func(kv.Entry) {}, nil)
		for name, err := range map[string]error{
			"verify": b.Verify(ctx), "put": put, "get": get, "last": last, "snapshot": snap, "follow": follow,
			"purge": b.Purge(ctx, "n.a"), "lease": b.Lease(ctx, "lease.a", "n.a", time.Second),
		} {
			if !errors.Is(err, wire.ErrDenied) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if time.Since(began) != 0 {
			t.Errorf("took %s", time.Since(began))
		}
		if err := kv.Provision(within(t, 10*time.Second), h.conn(t, login), realm, 1); !errors.Is(err, wire.ErrDenied) {
			t.Errorf("provision: %v", err)
		}
	})
}

func TestOffline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, b, _ := bucket(t)
		h.down()
		time.Sleep(time.Second)
		ctx := within(t, time.Hour)
		_, put := b.Put(ctx, "n.a", nil, 0)
		_, _, get := b.Get(ctx, "n.a")
		_, snap := b.Snapshot(ctx, subjects.NodeKeys())
		for name, err := range map[string]error{"verify": b.Verify(ctx), "put": put, "get": get, "snapshot": snap} {
			if !errors.Is(err, wire.ErrOffline) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}
