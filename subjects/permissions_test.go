package subjects

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNodePermissions(t *testing.T) {
	got := NodePermissions("fx", "desk")
	want := Permissions{
		Publish: []string{
			"weft.fx.call.*.desk.>", "weft.fx.ask.desk.>", "weft.fx.ctl.*.desk.>", "weft.fx.data.desk.>",
			"weft.fx.push.*.desk.>", "weft.fx.topic.desk.>", "_R.*.>", "_INBOX.>",
			"$KV.weft_fx_ctx.>", "$KV.weft_fx_dir.n.desk", "$KV.weft_fx_dir.lease.desk", "$KV.weft_fx_dir.if.>",
			"$JS.API.DIRECT.GET.KV_weft_fx_ctx", "$JS.API.DIRECT.GET.KV_weft_fx_ctx.>", "$JS.API.STREAM.INFO.KV_weft_fx_ctx",
			"$JS.API.DIRECT.GET.weft_fx_history", "$JS.API.STREAM.INFO.weft_fx_history",
			"$JS.API.DIRECT.GET.KV_weft_fx_dir", "$JS.API.DIRECT.GET.KV_weft_fx_dir.>", "$JS.API.STREAM.INFO.KV_weft_fx_dir",
		},
		Subscribe: []string{
			"weft.fx.call.desk.>", "weft.fx.ask.>", "weft.fx.ctl.desk.>", "weft.fx.data.>", "weft.fx.push.desk.>",
			"weft.fx.topic.>", "weft.fx.kv.>", "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.KV_weft_fx_ctx", "_R.desk.>",
		},
	}
	if !slices.Equal(got.Publish, want.Publish) || !slices.Equal(got.Subscribe, want.Subscribe) {
		t.Errorf("got %q", got)
	}
}

func TestClientPermissions(t *testing.T) {
	got := ClientPermissions("fx", "Excel_1")
	want := Permissions{
		Publish: []string{
			"weft.fx.call.*.Excel_1.>", "weft.fx.ask.Excel_1.>", "weft.fx.ctl.*.Excel_1.>", "weft.fx.topic.Excel_1.>",
		},
		Subscribe: []string{
			"weft.fx.data.>", "weft.fx.push.Excel_1.>", "weft.fx.topic.>", "_R.Excel_1.>", "_INBOX.>",
		},
	}
	if !slices.Equal(got.Publish, want.Publish) || !slices.Equal(got.Subscribe, want.Subscribe) {
		t.Errorf("got %q", got)
	}
}

func allowed(list []string, s Subject) bool {
	return slices.ContainsFunc(list, func(filter string) bool { return natsMatch(Subject(filter), s) })
}

// TestNodePermissionsSuffice: a node may do all that its builders are for, and
// nothing in another's name.
func TestNodePermissionsSuffice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, n := genRealm.Draw(t, "realm"), genNode.Draw(t, "node")
		peer := genNode.Filter(func(p Node) bool { return p != n }).Draw(t, "peer")
		app, a, b := genApp.Draw(t, "app"), genToken.Draw(t, "a"), genToken.Draw(t, "b")
		foreign := r + "x"
		if len(r) == maxID {
			foreign = r[1:]
		}
		p := NodePermissions(r, n)
		key, _ := ContextPath(a, []string{"p"})
		sends := func(r Realm, from Node) []Subject {
			return []Subject{
				r.CallSubject(peer, from, app, a), r.AskSubject(from, a), r.CtlSubject(peer, from, VerbPing),
				r.DataSubject(from, app, a, b), must[Subject](t)(r.PushSubject(peer, from, "s")),
				must[Subject](t)(r.TopicSubject(from, "a.b")),
				r.DirectoryBucket().Subject(NodeKey(from)), r.DirectoryBucket().Subject(LeaseKey(from)),
			}
		}
		ctx, dir := r.ContextBucket(), r.DirectoryBucket()
		may := append(sends(r, n), ctx.Subject(key), ctx.Subject(ContextRoot(a)), dir.Subject(must[Key](t)(ManifestKey("ab"))),
			ctx.DirectGet(), ctx.DirectGetLast(key), dir.DirectGet(), dir.DirectGetLast(NodeKey(peer)), ctx.Info(), dir.Info(), r.HistoryStream().DirectGet(), r.HistoryStream().Info(),
			Subject(InboxPrefix(peer)+".x"))
		for _, s := range may {
			if !allowed(p.Publish, s) {
				t.Fatalf("may not publish %q", s)
			}
		}
		mayNot := slices.Concat(sends(r, peer), sends(foreign, n), []Subject{
			foreign.ContextBucket().Subject(key), foreign.ContextBucket().DirectGet(), foreign.ContextBucket().Info(),
			foreign.HistoryStream().DirectGet(), foreign.HistoryStream().Info(),
			r.ContextRepublish(key), r.DirectoryRepublish(NodeKey(n)), "$SYS.REQ.SERVER.PING", "$JS.API.INFO",
		})
		for _, verb := range []string{"CREATE", "UPDATE", "DELETE", "PURGE", "MSG.GET", "MSG.DELETE", "SNAPSHOT", "RESTORE", "PEER.REMOVE"} {
			for _, stream := range []string{ctx.Stream(), dir.Stream(), string(r.HistoryStream())} {
				mayNot = append(mayNot, Subject("$JS.API.STREAM."+verb+"."+stream))
			}
		}
		for _, s := range mayNot {
			if allowed(p.Publish, s) {
				t.Fatalf("may publish %q", s)
			}
		}
		for _, s := range []Subject{
			r.CallSubject(n, peer, app, a), r.AskSubject(peer, a), r.CtlSubject(n, peer, VerbInfo), r.DataSubject(peer, app, a, b),
			must[Subject](t)(r.PushSubject(n, peer, "s")), must[Subject](t)(r.TopicSubject(peer, "a")),
			r.ContextRepublish(key), r.DirectoryRepublish(NodeKey(peer)), Subject(InboxPrefix(n) + ".x"),
		} {
			if !allowed(p.Subscribe, s) {
				t.Fatalf("may not subscribe to %q", s)
			}
		}
		for _, s := range []Subject{
			r.CallSubject(peer, n, app, a), r.CtlSubject(peer, n, VerbInfo), must[Subject](t)(r.PushSubject(peer, n, "s")),
			Subject(InboxPrefix(peer) + ".x"), "_INBOX.x", ctx.Subject(key), foreign.ContextRepublish(key), "$SYS.ACCOUNT.A.CONNECT",
		} {
			if allowed(p.Subscribe, s) {
				t.Fatalf("may subscribe to %q", s)
			}
		}
	})
}

// TestNoNameWidensPermissions: whatever the realm and the name are, each line
// has the wildcards of the template and no others.
func TestNoNameWidensPermissions(t *testing.T) {
	text := rapid.OneOf(rapid.SampledFrom(hostile), rapid.String())
	shape := func(s string) string {
		var b strings.Builder
		for token := range strings.SplitSeq(s, ".") {
			if token != "*" && token != ">" {
				if token == "" || strings.ContainsAny(token, "*> \t\r\n\x00") {
					return "broken: " + s
				}
				token = "x"
			}
			b.WriteString("." + token)
		}
		return b.String()
	}
	shapes := func(p Permissions) (all []string) {
		for _, s := range slices.Concat(p.Publish, p.Subscribe) {
			all = append(all, shape(s))
		}
		return all
	}
	rapid.Check(t, func(t *rapid.T) {
		r, name := Realm(text.Draw(t, "realm")), text.Draw(t, "name")
		if got, want := shapes(NodePermissions(r, Node(name))), shapes(NodePermissions("fx", "desk")); !slices.Equal(got, want) {
			t.Fatalf("got %q", got)
		}
		if got, want := shapes(ClientPermissions(r, name)), shapes(ClientPermissions("fx", "desk")); !slices.Equal(got, want) {
			t.Fatalf("got %q", got)
		}
	})
}
