package table

import (
	"encoding/json"
	"strings"
	"testing"
)

// said is a cell that says itself what it is.
type said string

func (s said) AppendText(b []byte) ([]byte, error) { return append(b, s...), nil }

func TestCellsThatSayThemselves(t *testing.T) {
	for _, c := range []string{"", "5d", "<unknown>", `"quoted"`, "a\nb", "ü", "\xff", strings.Repeat("<x>", 100)} {
		want, _ := json.Marshal(c)
		if got, err := appendCell([]byte("x"), said(c)); err != nil || string(got) != "x"+string(want) {
			t.Errorf("%v: got %s (%v), want %s", c, got, err, want)
		}
	}
}

func TestCellsAreJSON(t *testing.T) {
	for _, c := range []any{
		nil, "", "Running", "a b", `"quoted"`, `back\slash`, "<none>", "a&b", "a\nb", "\x7f", "ü", "\xff", 1, int32(-2), int64(1) << 40, true, 1.5,
		[]string{"a"}, map[string]any{"b": 1},
	} {
		want, _ := json.Marshal(c)
		if got, err := appendCell([]byte("x"), c); err != nil || string(got) != "x"+string(want) {
			t.Errorf("%v: got %s (%v), want %s", c, got, err, want)
		}
	}
}
