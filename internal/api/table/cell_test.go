package table

import (
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

func TestDurationsAreUpstreams(t *testing.T) {
	check := func(d time.Duration) {
		if got, want := string(appendDuration(nil, d)), duration.HumanDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for _, edge := range []time.Duration{0, time.Second, 2 * time.Minute, 10 * time.Minute, 3 * time.Hour, 8 * time.Hour, 48 * time.Hour, 8 * 24 * time.Hour, 2 * 365 * 24 * time.Hour, 8 * 365 * 24 * time.Hour} {
		for _, off := range []time.Duration{-2 * time.Second, -time.Second, -1, 0, 1, time.Second} {
			check(edge + off)
		}
	}
	for range 100_000 {
		check(time.Duration(rand.Int64N(int64(time.Duration(1) << (20 + rand.IntN(43))))))
	}
}
