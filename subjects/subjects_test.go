package subjects

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	realm Realm = "fx"
	self  Node  = "desk-7-ann"
	other Node  = "desk-9-bob"
	app   App   = "x7-3"
)

func TestSubjects(t *testing.T) {
	push := must[Subject](t)(realm.PushSubject(self, other, "sub_1-A"))
	for _, tt := range []struct{ got, want Subject }{
		{realm.CallSubject(self, other, app, MustEncode("T42.Demo")), "weft.fx.call.desk-7-ann.desk-9-bob.x7-3.T42=2EDemo"},
		{realm.CallFilter(self), "weft.fx.call.desk-7-ann.>"},
		{realm.AskSubject("Excel_1", MustEncode("Add")), "weft.fx.ask.Excel_1.Add"},
		{realm.AskFilter(), "weft.fx.ask.>"},
		{realm.CtlSubject(self, other, VerbSubscribe), "weft.fx.ctl.desk-7-ann.desk-9-bob.subscribe"},
		{realm.CtlSubject(self, other, VerbConfirm), "weft.fx.ctl.desk-7-ann.desk-9-bob.confirm"},
		{realm.CtlSubject(self, other, VerbUnsubscribe), "weft.fx.ctl.desk-7-ann.desk-9-bob.unsubscribe"},
		{realm.CtlSubject(self, other, VerbCancel), "weft.fx.ctl.desk-7-ann.desk-9-bob.cancel"},
		{realm.CtlSubject(self, other, VerbPing), "weft.fx.ctl.desk-7-ann.desk-9-bob.ping"},
		{realm.CtlSubject(self, other, VerbInfo), "weft.fx.ctl.desk-7-ann.desk-9-bob.info"},
		{realm.CtlFilter(self), "weft.fx.ctl.desk-7-ann.>"},
		{realm.DataSubject(self, app, MustEncode("Prices"), Token{}), "weft.fx.data.desk-7-ann.x7-3.Prices.="},
		{realm.DataSubject(self, app, MustEncode("Prices"), MustEncode("EUR/USD")), "weft.fx.data.desk-7-ann.x7-3.Prices.EUR=2FUSD"},
		{push, "weft.fx.push.desk-7-ann.desk-9-bob.sub_1-A"},
		{realm.PushFilter(self), "weft.fx.push.desk-7-ann.>"},
		{Subject(InboxPrefix(self)), "_R.desk-7-ann"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestPushSubjectRefuses(t *testing.T) {
	for _, sub := range []string{"", "*", "a.b", "=", "a b", "ü", strings.Repeat("a", 65)} {
		s, err := realm.PushSubject(self, other, sub)
		if s != "" {
			t.Errorf("got %q", s)
		}
		wantBadName(t, err)
	}
}

// TestCarelessConversionWidensNothing: an unchecked string in an id stays one
// token, and no parser takes the result.
func TestCarelessConversionWidensNothing(t *testing.T) {
	for _, s := range append([]string{"a.>", "x.*.y", "A B"}, hostile...) {
		if isCaller(s) || isApp(s) {
			continue
		}
		n, method := Node(s), MustEncode("m")
		subjects := []Subject{
			Realm(s).CallSubject(self, other, app, method),
			realm.CallSubject(n, other, app, method),
			realm.CallSubject(self, n, app, method),
			realm.CallSubject(self, other, App(s), method),
		}
		for _, got := range subjects {
			if strings.Count(string(got), ".") != 6 {
				t.Fatalf("%q made %q", s, got)
			}
			for token := range strings.SplitSeq(string(got), ".") {
				if !isPlain(strings.ReplaceAll(token, "=", "-"), len(got)) {
					t.Fatalf("%q made %q", s, got)
				}
			}
			if c, err := ParseCall(string(got)); err == nil {
				t.Errorf("%q passed as %+v", got, c)
			}
		}
		if _, err := ParseCtl(string(realm.CtlSubject(self, other, Verb(s)))); err == nil {
			t.Errorf("the verb %q passed", s)
		}
	}
}

func TestSubjectRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, to, from := genRealm.Draw(t, "realm"), genNode.Draw(t, "to"), genCaller.Draw(t, "from")
		app, a, b := genApp.Draw(t, "app"), genToken.Draw(t, "a"), genToken.Draw(t, "b")
		wireA, wireB := wireOnly(a), wireOnly(b)

		call := r.CallSubject(to, from, app, a)
		checkSubject(t, call)
		if got := must[Call](t)(ParseCall(string(call))); got != (Call{r, to, from, app, wireA}) {
			t.Fatalf("%q: %+v", call, got)
		}
		ask := r.AskSubject(from, a)
		checkSubject(t, ask)
		if got := must[Ask](t)(ParseAsk(string(ask))); got != (Ask{r, from, wireA}) {
			t.Fatalf("%q: %+v", ask, got)
		}
		verb := rapid.SampledFrom([]Verb{VerbSubscribe, VerbConfirm, VerbUnsubscribe, VerbCancel, VerbPing, VerbInfo}).Draw(t, "verb")
		ctl := r.CtlSubject(to, from, verb)
		checkSubject(t, ctl)
		if got := must[Ctl](t)(ParseCtl(string(ctl))); got != (Ctl{r, to, from, verb}) {
			t.Fatalf("%q: %+v", ctl, got)
		}
		data := r.DataSubject(to, app, a, b)
		checkSubject(t, data)
		if got := must[Data](t)(ParseData(string(data))); got != (Data{r, to, app, wireA, wireB}) {
			t.Fatalf("%q: %+v", data, got)
		}
		sub := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "sub")
		push := must[Subject](t)(r.PushSubject(from, to, sub))
		checkSubject(t, push)
		if got := must[Push](t)(ParsePush(string(push))); got != (Push{r, from, to, sub}) {
			t.Fatalf("%q: %+v", push, got)
		}
		for filter, s := range map[Subject]Subject{
			r.CallFilter(to): call, r.AskFilter(): ask, r.CtlFilter(to): ctl, r.PushFilter(from): push,
		} {
			if !natsMatch(filter, s) {
				t.Fatalf("%q does not match %q", filter, s)
			}
		}
	})
}

func TestParsersRefuse(t *testing.T) {
	parsers := map[string]func(string) error{
		"call": func(s string) error { _, err := ParseCall(s); return err },
		"ask":  func(s string) error { _, err := ParseAsk(s); return err },
		"ctl":  func(s string) error { _, err := ParseCtl(s); return err },
		"data": func(s string) error { _, err := ParseData(s); return err },
		"push": func(s string) error { _, err := ParsePush(s); return err },
		"topic": func(s string) error {
			_, err := ParseTopic(s)
			return err
		},
	}
	good := map[string]string{
		"call": "weft.fx.call.to.from.b-1.m", "ask": "weft.fx.ask.from.m", "ctl": "weft.fx.ctl.to.from.ping",
		"data": "weft.fx.data.own.b-1.s.=", "push": "weft.fx.push.to.own.s", "topic": "weft.fx.topic.from.t",
	}
	for kind, parse := range parsers {
		s := good[kind]
		if err := parse(s); err != nil {
			t.Errorf("%s refuses %q: %v", kind, s, err)
		}
		bad := []string{
			s + ".", "." + s, s + "*", s + ".>", s + " ", s + "\x00", s + "\r\n", "x" + s, strings.ToUpper(s),
			strings.Replace(s, "fx", "FX", 1), strings.Replace(s, "fx", "", 1), strings.Replace(s, "fx", "*", 1),
			strings.Replace(s, "fx", "-fx", 1), strings.Replace(s, kind, kind+"s", 1),
			s[:strings.LastIndexByte(s, '.')], s[:strings.LastIndexByte(s, '.')+1], s + strings.Repeat("a", MaxSubject),
		}
		if kind != "topic" {
			bad = append(bad, s+".x")
		}
		tokens := strings.Split(s, ".")
		for i := 3; i < len(tokens); i++ { // every later token in turn
			for _, evil := range []string{"", "*", ">", "$SYS", "a b", "=41", "é", strings.Repeat("a", 97)} {
				changed := append([]string{}, tokens...)
				changed[i] = evil
				bad = append(bad, strings.Join(changed, "."))
			}
		}
		bad = append(bad, hostile...)
		for other, s := range good {
			if other != kind {
				bad = append(bad, s)
			}
		}
		for _, s := range bad {
			if err := parse(s); err == nil {
				t.Errorf("%s accepts %q", kind, s)
			} else {
				wantBadName(t, err)
			}
		}
	}
	for _, s := range []string{
		"weft.fx.call.To.from.b-1.m", "weft.fx.ctl.to.from.pings", "weft.fx.ctl.to.from.Ping", "weft.fx.data.Own.b-1.s.=",
		"weft.fx.push.to.Own.s", "weft.fx.push.to.own.=", "weft.fx.call.to.from.b-01.m", "weft.fx.call.to.from.b.m",
	} {
		if err := parsers[strings.Split(s, ".")[2]](s); err == nil {
			t.Errorf("%q passed", s)
		}
	}
}

func FuzzParseCall(f *testing.F) {
	seed(f, "weft.fx.call.to.From_1.b-1.T42=2EDemo", "weft.fx.call.to.from.b-1.=haaaaaaaaaaaaaaaaaaaaaaaaaa", "weft.fx.call.to.>.b-1.m")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCall(s); err == nil {
			checkRebuilt(t, s, c.Realm.CallSubject(c.To, c.From, c.App, c.Method))
		}
	})
}

func FuzzParseAsk(f *testing.F) {
	seed(f, "weft.fx.ask.Excel_1.T42=2EDemo", "weft.fx.ask.*.m")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseAsk(s); err == nil {
			checkRebuilt(t, s, a.Realm.AskSubject(a.From, a.Method))
		}
	})
}

func FuzzParseCtl(f *testing.F) {
	seed(f, "weft.fx.ctl.to.from.ping", "weft.fx.ctl.to.from.*")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCtl(s); err == nil {
			checkRebuilt(t, s, c.Realm.CtlSubject(c.To, c.From, c.Verb))
		}
	})
}

func FuzzParseData(f *testing.F) {
	seed(f, "weft.fx.data.own.b-1.Prices.=", "weft.fx.data.own.b-1.s.EUR=2FUSD")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseData(s); err == nil {
			checkRebuilt(t, s, d.Realm.DataSubject(d.Owner, d.App, d.Stream, d.Branch))
		}
	})
}

func FuzzParsePush(f *testing.F) {
	seed(f, "weft.fx.push.To_1.own.sub_1-A")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePush(s); err == nil {
			checkRebuilt(t, s, must[Subject](t)(p.Realm.PushSubject(p.To, p.Owner, p.Sub)))
		}
	})
}

func checkRebuilt(t *testing.T, s string, built Subject) {
	t.Helper()
	checkSubject(t, built)
	if string(built) != s {
		t.Fatalf("%q parsed and built is %q", s, built)
	}
}

func BenchmarkCallSubject(b *testing.B) {
	method := MustEncode("T42.Demo.PlaceOrder")
	b.ReportAllocs()
	for b.Loop() {
		realm.CallSubject(self, other, app, method)
	}
}

func BenchmarkParseCall(b *testing.B) {
	s := string(realm.CallSubject(self, other, app, MustEncode("T42.Demo.PlaceOrder")))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCall(s); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllocations(t *testing.T) {
	method := MustEncode("T42.Demo.PlaceOrder")
	s := string(realm.CallSubject(self, other, app, method))
	if n := testing.AllocsPerRun(100, func() { realm.CallSubject(self, other, app, method) }); n > 1 {
		t.Errorf("CallSubject: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseCall(s) }); n > 0 {
		t.Errorf("ParseCall: %v allocations", n)
	}
}
