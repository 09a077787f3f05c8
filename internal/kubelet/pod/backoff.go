package pod

import (
	"time"
)

const (
	firstBack = 10 * time.Second
	maxBack   = 5 * time.Minute
)

// Back is the back-off of something that keeps failing.
type Back struct {
	Delay time.Duration
	Set   time.Time
}

// Next back-off after a failure at a time: 10 s, doubled up to 5 min, begun anew
// when all was well for twice as long.
func (b Back) Next(failed, now time.Time) Back {
	if b.Delay == 0 || b.expired(failed) {
		return Back{firstBack, now}
	}
	return Back{min(2*b.Delay, maxBack), now}
}

// Until when a restart after a failure waits; zero = not at all.
func (b Back) Until(failed time.Time) time.Time {
	if b.Delay == 0 || b.expired(failed) {
		return time.Time{}
	}
	return failed.Add(b.Delay)
}

func (b Back) expired(failed time.Time) bool { return failed.Sub(b.Set) > 2*maxBack }
