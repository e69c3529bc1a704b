package subjects

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTopicSubject(t *testing.T) {
	for _, tt := range []struct{ topic, subject, filter string }{
		{"prices", "prices", "prices"},
		{"prices.EU/ann", "prices.EU=2Fann", "prices.EU=2Fann"},
		{"", "=", "="},
		{"a..b", "a.=.b", "a.=.b"},
		{".", "=.=", "=.="},
		{"a.*", "a.=2A", "a.*"},
		{"*.b", "=2A.b", "*.b"},
		{">", "=3E", ">"},
		{"a.>", "a.=3E", "a.>"},
		{">.a", "=3E.a", "=3E.a"}, // only the last token can be a wildcard >
		{"a*.b>", "a=2A.b=3E", "a=2A.b=3E"},
		{"**", "=2A=2A", "=2A=2A"},
		{"$SYS.REQ", "=24SYS.REQ", "=24SYS.REQ"},
		{strings.Repeat("a", 97), "=hfiwgb7uwv6wjcuouxwjs7w2fxy", "=hfiwgb7uwv6wjcuouxwjs7w2fxy"},
	} {
		s, err := realm.TopicSubject(self, tt.topic)
		if err != nil || string(s) != "weft.fx.topic.desk-7-ann."+tt.subject {
			t.Errorf("TopicSubject(%q) = %q, %v", tt.topic, s, err)
		}
		f, err := realm.TopicFilter(tt.topic)
		if err != nil || string(f) != "weft.fx.topic.*."+tt.filter {
			t.Errorf("TopicFilter(%q) = %q, %v", tt.topic, f, err)
		}
	}
}

func TestTopicSubjectRefuses(t *testing.T) {
	for _, topic := range []string{
		"\xff", "a.\xff", strings.Repeat("a", 256), "a." + strings.Repeat("b", 256),
		strings.Repeat("a.", 600), strings.Repeat("x.", 1<<20), strings.Repeat(".", 4096),
	} {
		s, err := realm.TopicSubject(self, topic)
		wantBadName(t, err)
		f, err := realm.TopicFilter(topic)
		wantBadName(t, err)
		if s != "" || f != "" {
			t.Errorf("got %.40q and %.40q", s, f)
		}
	}
}

func TestTopicSubjectLimit(t *testing.T) {
	room := MaxSubject - len("weft.fx.topic.desk-7-ann.")
	fits := strings.Repeat("a.", room/2) + strings.Repeat("a", room%2)
	if room%2 == 0 {
		fits = strings.Repeat("a.", room/2-1) + "aa"
	}
	s, err := realm.TopicSubject(self, fits)
	if err != nil || len(s) != MaxSubject {
		t.Fatalf("%d bytes, %v", len(s), err)
	}
	if topic, err := ParseTopic(string(s)); err != nil || topic.Name != fits {
		t.Errorf("ParseTopic: %v", err)
	}
	_, err = realm.TopicSubject(self, fits+"a")
	wantBadName(t, err)
}

func TestParseTopic(t *testing.T) {
	got := must[Topic](t)(ParseTopic("weft.fx.topic.Excel_1.prices.EU=2Fann.="))
	if got != (Topic{Realm: "fx", From: "Excel_1", Name: "prices.EU/ann.", NameKnown: true}) {
		t.Errorf("got %+v", got)
	}
}

func TestHashedTopic(t *testing.T) {
	name := "prices." + strings.Repeat("x", 200) + ".EU/ann"
	s := must[Subject](t)(realm.TopicSubject(self, name))
	got := must[Topic](t)(ParseTopic(string(s)))
	if got.NameKnown || got.Name != "" {
		t.Fatalf("got %+v", got)
	}
	for _, wrong := range []string{"", "prices", name + "x", strings.Replace(name, "x", "y", 1), "\xff"} {
		_, err := got.WithName(wrong)
		wantBadName(t, err)
	}
	want := Topic{Realm: realm, From: self, Name: name, NameKnown: true}
	named := must[Topic](t)(got.WithName(name))
	if named != want {
		t.Errorf("got %+v", named)
	}
	if again, err := named.WithName(name); err != nil || again != want {
		t.Errorf("got %+v, %v", again, err)
	}
	_, err := named.WithName("prices")
	wantBadName(t, err)
}

func TestTopicRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, from, name := genRealm.Draw(t, "realm"), genCaller.Draw(t, "from"), genTopic.Draw(t, "topic")
		s := must[Subject](t)(r.TopicSubject(from, name))
		checkSubject(t, s)
		got := must[Topic](t)(ParseTopic(string(s)))
		if !got.NameKnown {
			got = must[Topic](t)(got.WithName(name))
		}
		if got != (Topic{Realm: r, From: from, Name: name, NameKnown: true}) {
			t.Fatalf("%q came back as %+v", name, got)
		}
	})
}

func TestMatchTopic(t *testing.T) {
	for _, tt := range []struct {
		pattern, topic string
		want           bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"*", "a", true},
		{"*", "", true},
		{"*", "a.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false},
		{">", "a", true},
		{">", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "a.b.c", true},
		{">.a", "b.a", false},
		{">.a", ">.a", true},
		{"a*", "ab", false},
		{"a*", "a*", true},
		{"A", "a", false},
		{"", "", true},
		{"", "a", false},
		{"a.", "a", false},
		{"a.*", "a.", true},
	} {
		if got := MatchTopic(tt.pattern, tt.topic); got != tt.want {
			t.Errorf("MatchTopic(%q, %q) = %t", tt.pattern, tt.topic, got)
		}
	}
}

// checkMatch compares MatchTopic with what NATS makes of filter and subject.
func checkMatch(t rapid.TB, pattern, topic string) {
	t.Helper()
	filter, err := realm.TopicFilter(pattern)
	if err != nil {
		return
	}
	s, err := realm.TopicSubject(self, topic)
	if err != nil {
		return
	}
	if got, want := MatchTopic(pattern, topic), natsMatch(filter, s); got != want {
		t.Fatalf("MatchTopic(%q, %q) = %t, but NATS: %t", pattern, topic, got, want)
	}
}

func TestMatchTopicIsWhatNATSDoes(t *testing.T) {
	small := rapid.StringMatching(`([ab*>]?)(\.[ab*>]{0,2}){0,3}`)
	either := rapid.OneOf(small, genTopic)
	rapid.Check(t, func(t *rapid.T) {
		checkMatch(t, either.Draw(t, "pattern"), either.Draw(t, "topic"))
	})
}

func FuzzParseTopic(f *testing.F) {
	seed(f, "weft.fx.topic.Excel_1.prices.EU=2Fann.=", "weft.fx.topic.a.=haaaaaaaaaaaaaaaaaaaaaaaaaa.b", "weft.fx.topic.*.a")
	f.Fuzz(func(t *testing.T, s string) {
		topic, err := ParseTopic(s)
		if err != nil {
			wantBadName(t, err)
			return
		}
		checkSubject(t, Subject(s))
		if topic.NameKnown {
			checkRebuilt(t, s, must[Subject](t)(topic.Realm.TopicSubject(topic.From, topic.Name)))
		} else if topic.Name != "" {
			t.Fatalf("%q: an unknown name is %q", s, topic.Name)
		}
	})
}

func FuzzTopicFilter(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, s)
		f.Add(s, "a.b")
		f.Add("a.*", s)
	}
	f.Fuzz(func(t *testing.T, pattern, topic string) {
		if s, err := realm.TopicSubject(self, topic); err == nil {
			checkSubject(t, s)
		} else {
			wantBadName(t, err)
		}
		if s, err := realm.TopicFilter(pattern); err != nil {
			wantBadName(t, err)
		} else if tokens, ok := strings.CutPrefix(string(s), "weft.fx.topic.*."); !ok || strings.Contains(tokens, ">.") {
			t.Fatalf("got %q", s)
		}
		checkMatch(t, pattern, topic)
	})
}
