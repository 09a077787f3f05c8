package figure

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v      float64
		digits int
		want   string
	}{
		{5210, 3, "5,210"}, {1234567.8, 3, "1,234,568"}, {635.4, 3, "635"}, {56.4, 3, "56.4"}, {0.14, 3, "0.140"}, {9.96, 2, "10.0"},
		{0.5, 2, "0.50"}, {12.7, 2, "13"}, {0, 3, "0"}, {0.0004, 3, "0.000"},
	} {
		if got := number(c.v, c.digits); got != c.want {
			t.Errorf("number(%v, %d) = %q, want %q", c.v, c.digits, got, c.want)
		}
	}
}

func TestCount(t *testing.T) {
	if got := Count(10000); got != "10,000" {
		t.Errorf("Count(10000) = %q", got)
	}
}

func example() *Book {
	b := &Book{}
	create := Kind{"api", "create a pod", PerSecond}
	idle := Kind{"server", "idle memory", Megabytes}
	for _, v := range []float64{4000, 4400, 9000} {
		b.Add(create, Proa, v)
	}
	for _, v := range []float64{500, 600} {
		b.Add(create, Upstream, v)
	}
	b.Add(idle, Upstream, 580)
	b.Add(idle, Proa, 58)
	b.Add(Kind{"node", "up", Seconds}, Proa, 0.5)
	return b
}

func TestMarkdown(t *testing.T) {
	var out strings.Builder
	example().Markdown(&out)
	want := `|              | Proa     | upstream | ratio |
| ------------ | -------- | -------- | ----- |
| create a pod | 4,400 /s | 550 /s   | 8.0×  |
| idle memory  | 58.0 MB  | 580 MB   | 10×   |
| up           | 0.500 s  |          |       |
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestJSON(t *testing.T) {
	var out strings.Builder
	if err := example().JSON(&out, Machine{CPUs: 2, Rounds: 3}); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Machine struct{ CPUs int }
		Figures []struct {
			Name     string
			Ratio    float64
			Proa     struct{ Rounds []float64 }
			Upstream *struct{ Median float64 }
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Machine.CPUs != 2 || len(got.Figures) != 3 || got.Figures[0].Ratio != 8 || len(got.Figures[0].Proa.Rounds) != 3 ||
		got.Figures[1].Upstream.Median != 580 || got.Figures[2].Upstream != nil {
		t.Errorf("%s", out.String())
	}
}
