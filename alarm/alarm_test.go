package alarm_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-fabric/weft/alarm"
)

func damaged(server string) alarm.Alarm {
	return alarm.Alarm{Kind: alarm.ReplicaDamaged, Stream: "S", Server: server, Text: "about " + server}
}

// TestSet: what is raised again and again is one alarm and one line, and is over when
// everybody who raised it says so.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := alarm.New(slog.New(slog.NewTextHandler(&log, nil)))
		changed := s.Changed()
		start := time.Now()
		for range 100 {
			s.Raise("a", damaged("s1"))
			s.Raise("b", damaged("s1"))
		}
		select {
		case <-changed:
		default:
			t.Error("no news of the alarm")
		}
		changed = s.Changed()
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "server=s1") {
			t.Errorf("%d lines: %s", n, &log)
		}
		time.Sleep(time.Minute)
		s.Clear("c", alarm.ReplicaDamaged, "S", "") // who has not raised it
		s.Clear("a", alarm.ReplicaDamaged, "S", "s2")
		s.Clear("a", alarm.ReplicaDamaged, "T", "")
		s.Clear("a", alarm.TailLost, "S", "")
		s.Clear("a", alarm.ReplicaDamaged, "S", "s1")
		if list := s.Active(); len(list) != 1 || !list[0].Since.Equal(start) || !list[0].Until.IsZero() {
			t.Errorf("b still sees it: %+v", list)
		}
		select {
		case <-changed:
			t.Error("nothing has changed")
		default:
		}
		s.Clear("b", alarm.ReplicaDamaged, "S", "")
		<-changed
		if list := s.Active(); len(list) != 0 {
			t.Errorf("still there: %+v", list)
		}
		if list := s.Past(); len(list) != 1 || list[0].Until.Sub(list[0].Since) != time.Minute {
			t.Errorf("past: %+v", list)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines: %s", n, &log)
		}
	})
}

func TestSetIsBoundedAndOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alarm.New(nil)
		for i := range 100 {
			s.Raise(0, damaged(fmt.Sprint("s", i)))
			time.Sleep(time.Second)
		}
		for i, a := range s.Active() {
			if a.Server != fmt.Sprint("s", i) {
				t.Fatalf("%d: %+v", i, a)
			}
		}
		s.Clear(0, alarm.ReplicaDamaged, "S", "")
		if n := len(s.Past()); n == 0 || n > 50 {
			t.Errorf("%d remembered", n)
		}
	})
}

// A nil set is for those who have nobody to tell.
func TestNilSet(t *testing.T) {
	var s *alarm.Set
	s.Raise(0, damaged(""))
	s.Clear(0, alarm.ReplicaDamaged, "S", "")
	if s.Active() != nil || s.Past() != nil || s.Changed() != nil {
		t.Error("a nil set has something")
	}
}
