package table

import (
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Own is a cell that is a string of the object itself. It needs no memory beside it.
type Own string

// String is the string.
func (o *Own) String() string { return string(*o) }

// AppendText is an encoding.TextAppender.
func (o *Own) AppendText(b []byte) ([]byte, error) { return append(b, *o...), nil }

// OwnOrNone is a string of the object itself, or "<none>" if it is empty.
func OwnOrNone(s *string) any {
	if *s == "" {
		return "<none>"
	}
	return (*Own)(s)
}

// Ratio is a cell that says how many of how many: "1/2".
type Ratio struct{ Of, All int32 }

// String is how it is shown.
func (r Ratio) String() string {
	b, _ := r.AppendText(nil)
	return string(b)
}

// AppendText is an encoding.TextAppender.
func (r Ratio) AppendText(b []byte) ([]byte, error) {
	b = append(strconv.AppendInt(b, int64(r.Of), 10), '/')
	return strconv.AppendInt(b, int64(r.All), 10), nil
}

// Elapsed is a cell that says how long ago a time of the object was: "5d",
// "<unknown>" if it is not set.
type Elapsed metav1.Time

// String is how it is shown now.
func (e *Elapsed) String() string {
	b, _ := e.AppendText(nil)
	return string(b)
}

// AppendText is an encoding.TextAppender.
func (e *Elapsed) AppendText(b []byte) ([]byte, error) {
	if e.IsZero() {
		return append(b, "<unknown>"...), nil
	}
	return appendDuration(b, time.Since(e.Time)), nil
}

// Since is how long ago t was: "5d", "<unknown>" if it is not set.
func Since(t metav1.Time) string { return (*Elapsed)(&t).String() }

// AgeOf is the cell of the column Age.
func AgeOf(obj metav1.Object) any {
	if o, ok := obj.(metav1.ObjectMetaAccessor); ok {
		if m, ok := o.GetObjectMeta().(*metav1.ObjectMeta); ok {
			return (*Elapsed)(&m.CreationTimestamp)
		}
	}
	return Since(obj.GetCreationTimestamp())
}

// appendDuration writes a duration as k8s.io/apimachinery/pkg/util/duration's
// HumanDuration does: in one or two units, the less exact the longer.
func appendDuration(b []byte, d time.Duration) []byte {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	seconds := int64(d.Seconds())
	switch {
	case seconds < -1:
		return append(b, "<invalid>"...)
	case seconds < 0:
		return append(b, "0s"...)
	case seconds < 120:
		return append(strconv.AppendInt(b, seconds, 10), 's')
	case d < 10*time.Minute:
		return appendUnits(b, d, time.Minute, 'm', time.Second, 's')
	case d < 3*time.Hour:
		return append(strconv.AppendInt(b, int64(d/time.Minute), 10), 'm')
	case d < 8*time.Hour:
		return appendUnits(b, d, time.Hour, 'h', time.Minute, 'm')
	case d < 2*day:
		return append(strconv.AppendInt(b, int64(d/time.Hour), 10), 'h')
	case d < 8*day:
		return appendUnits(b, d, day, 'd', time.Hour, 'h')
	case d < 2*year:
		return append(strconv.AppendInt(b, int64(d/day), 10), 'd')
	case d < 8*year:
		return appendUnits(b, d, year, 'y', day, 'd')
	}
	return append(strconv.AppendInt(b, int64(d/year), 10), 'y')
}

// appendUnits writes a duration in a large unit and, if something is left, a small one.
func appendUnits(b []byte, d, large time.Duration, l byte, small time.Duration, s byte) []byte {
	b = append(strconv.AppendInt(b, int64(d/large), 10), l)
	if left := int64(d % large / small); left > 0 {
		b = append(strconv.AppendInt(b, left, 10), s)
	}
	return b
}
