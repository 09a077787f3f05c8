package suite

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// watcher reads what ginkgo prints and finds the ends of tests in it. With one
// process ginkgo names a test when it starts, below a rule; with several when it
// ends, below the line with its time.
type watcher struct {
	tests map[string]*Test
	ended func(*Test)

	running string // named, not ended
	rule    bool   // the line before was a rule
	end     *end   // the line before was the end of a test
}

type end struct {
	state State
	took  time.Duration
}

// endLine is "• [2.123 seconds]", "• [FAILED] [12.3 seconds]",
// "S [SKIPPED] [0.100 seconds]".
var endLine = regexp.MustCompile(`^\s*(?:•|S|P)\s(?:\[([A-Z -]+)\] )?(?:\[[A-Z ]+\] )?\[([\d.]+) seconds\]`)

// watch until the output ends, and copy it to log.
func (w *watcher) watch(output io.Reader, log io.Writer) error {
	lines := bufio.NewScanner(output)
	lines.Buffer(make([]byte, 1<<16), 1<<26)
	for lines.Scan() {
		if _, err := io.WriteString(log, lines.Text()+"\n"); err != nil {
			return err
		}
		w.line(lines.Text())
	}
	return lines.Err()
}

func (w *watcher) line(line string) {
	t := w.named(line)
	switch {
	case w.end != nil:
		if t == nil {
			t = w.tests[w.running]
		}
		if t != nil {
			t.State, t.Took = w.end.state, w.end.took
			w.ended(t)
		}
		w.end, w.running = nil, ""
	case t != nil:
		w.running = t.Name
	}
	w.rule = strings.HasPrefix(line, "-----")
	m := endLine.FindStringSubmatch(line)
	if m == nil {
		return
	}
	seconds, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		return
	}
	w.end = &end{Failed, time.Duration(seconds * float64(time.Second))}
	switch m[1] {
	case "":
		w.end.state = Passed
	case "SKIPPED":
		w.end.state = Skipped
	case "INTERRUPTED":
		w.end.state = NotRun
	}
}

// named is the test that a line names, nil = none. Ginkgo prints a name with its
// labels behind it.
func (w *watcher) named(line string) *Test {
	if w.end == nil && !w.rule {
		return nil
	}
	name := strings.Replace(strings.TrimSpace(line), " [It] ", " ", 1)
	for name != "" {
		if t := w.tests[name]; t != nil {
			return t
		}
		at := strings.LastIndex(name, " ")
		if at < 0 {
			return nil
		}
		name = name[:at]
	}
	return nil
}
