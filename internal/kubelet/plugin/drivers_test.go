package plugin

import (
	"context"
	"slices"
	"testing"
)

func TestDrivers(t *testing.T) {
	var s Drivers[Info]
	one, two := Info{Name: "d", Said: "/1"}, Info{Name: "d", Said: "/2"}
	done := make(chan struct{})
	go func() { s.Await(t.Context(), "d"); close(done) }()
	s.Add("other", Info{})
	s.Add("d", one)
	<-done
	s.Await(t.Context(), "d") // it is there
	over, cancel := context.WithCancel(t.Context())
	cancel()
	s.Await(over, "none") // its time is up
	before := s.Of("d")
	s.Add("d", two)
	if got := s.Of("d"); len(before) != 1 || len(got) != 2 || got[1].Said != "/2" {
		t.Errorf("%v, then %v", before, got)
	}
	if _, was := s.Remove("d", "/3"); was {
		t.Error("what was never there is gone")
	}
	if d, was := s.Remove("d", "/1"); !was || d.Said != "/1" || len(s.Of("d")) != 1 {
		t.Errorf("%v %v; left: %v", d, was, s.Of("d"))
	}
	s.Remove("d", "/2")
	if got := s.Names(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("%v", got)
	}
}
