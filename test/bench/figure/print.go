package figure

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Markdown prints a table that reads well on a terminal too.
func (b *Book) Markdown(w io.Writer) {
	rows := [][]string{{"", "Proa", "upstream", "ratio"}, {"---", "---", "---", "---"}}
	for _, l := range b.Lines() {
		row := []string{l.Name, l.cell(Proa), l.cell(Upstream), ""}
		if r, ok := l.Ratio(); ok {
			row[3] = number(r, 2) + "×"
		}
		rows = append(rows, row)
	}
	var width [4]int
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			pad := width[i] - utf8.RuneCountInString(cell)
			fill := " "
			if cell == "---" {
				fill = "-"
			}
			fmt.Fprintf(w, "| %s%s ", cell, strings.Repeat(fill, pad))
		}
		fmt.Fprintln(w, "|")
	}
}

func (l *Line) cell(s System) string {
	v, ok := l.Median(s)
	if !ok {
		return ""
	}
	return number(v, 3) + " " + l.Unit.Name
}

// Count is a whole number with its thousands parted by commas.
func Count(n int) string { return number(float64(n), 1) }

// number with as many significant digits, thousands parted by commas.
func number(v float64, digits int) string {
	decimals := 0
	for limit := pow10(digits - 1); decimals < 3 && v < limit && v != 0; limit /= 10 {
		decimals++
	}
	text := strconv.FormatFloat(v, 'f', decimals, 64)
	whole, rest, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return whole
}

func pow10(n int) float64 {
	v := 1.0
	for range n {
		v *= 10
	}
	return v
}

// Machine and programs that the figures are of.
type Machine struct {
	CPUs     int     `json:"cpus"`
	Memory   float64 `json:"memoryMB"`
	Load     float64 `json:"loadAverageAtStart"`
	Kernel   string  `json:"kernel"`
	Proa     string  `json:"proa,omitempty"`
	Upstream string  `json:"upstream,omitempty"`
	Rounds   int     `json:"rounds"`
}

type jsonLine struct {
	Part     string      `json:"part"`
	Name     string      `json:"name"`
	Unit     string      `json:"unit"`
	Proa     *jsonValues `json:"proa,omitempty"`
	Upstream *jsonValues `json:"upstream,omitempty"`
	Ratio    float64     `json:"ratio,omitempty"` // how many times better Proa is
}

type jsonValues struct {
	Median float64   `json:"median"`
	Rounds []float64 `json:"rounds"`
}

// JSON prints everything that was measured.
func (b *Book) JSON(w io.Writer, m Machine) error {
	out := struct {
		Machine Machine    `json:"machine"`
		Figures []jsonLine `json:"figures"`
	}{Machine: m, Figures: []jsonLine{}}
	for _, l := range b.Lines() {
		line := jsonLine{Part: l.Part, Name: l.Name, Unit: l.Unit.Name, Proa: l.values(Proa), Upstream: l.values(Upstream)}
		line.Ratio, _ = l.Ratio()
		out.Figures = append(out.Figures, line)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

func (l *Line) values(s System) *jsonValues {
	m, ok := l.Median(s)
	if !ok {
		return nil
	}
	return &jsonValues{Median: m, Rounds: l.Values[s]}
}
