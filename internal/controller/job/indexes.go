package job

import (
	"slices"
	"strconv"
	"strings"
)

// span is the indexes from first to last.
type span struct{ first, last int }

// indexes in rising order, neighbours joined. Its text is that of
// status.completedIndexes: "1,3-5,7".
type indexes []span

// parseIndexes below limit; what is malformed is left out.
func parseIndexes(text string, limit int) indexes {
	var out indexes
	if text == "" {
		return nil
	}
	for _, part := range strings.Split(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first >= limit {
			continue
		}
		last := first
		if ranged {
			if last, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		out = out.with(span{first, min(last, limit-1)})
	}
	return out
}

// with more spans.
func (x indexes) with(more ...span) indexes {
	all := append(slices.Clone(x), more...)
	slices.SortFunc(all, func(a, b span) int { return a.first - b.first })
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
		} else {
			out = append(out, s)
		}
	}
	return out
}

func (x indexes) has(i int) bool {
	_, ok := slices.BinarySearchFunc(x, i, func(s span, i int) int {
		switch {
		case s.last < i:
			return -1
		case s.first > i:
			return 1
		}
		return 0
	})
	return ok
}

func (x indexes) total() (n int) {
	for _, s := range x {
		n += s.last - s.first + 1
	}
	return n
}

// both counts the indexes that are in x and in y.
func (x indexes) both(y indexes) (n int) {
	for _, a := range x {
		for _, b := range y {
			n += max(0, min(a.last, b.last)-max(a.first, b.first)+1)
		}
	}
	return n
}

func (x indexes) String() string {
	var b strings.Builder
	for _, s := range x {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s.first))
		switch {
		case s.last == s.first+1:
			b.WriteString("," + strconv.Itoa(s.last))
		case s.last > s.first:
			b.WriteString("-" + strconv.Itoa(s.last))
		}
	}
	return b.String()
}

// missing returns up to n of the lowest indexes below limit that are not in x.
func (x indexes) missing(n, limit int) []int {
	var out []int
	at := 0
	for _, s := range append(slices.Clone(x), span{limit, limit}) {
		for ; at < s.first && at < limit && len(out) < n; at++ {
			out = append(out, at)
		}
		at = max(at, s.last+1)
	}
	return out
}
