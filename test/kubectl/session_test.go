package kubectl

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// step is one command of a session, and what it prints.
//
//	# words for the reader
//	$ kubectl get configmap settings
//	NAME  DATA  AGE
//	settings  1  AGE
//	[exit 1]
//
// "$1.36 kubectl …" is a command for kubectl 1.36 alone. Standard output and
// error are one stream, as on a terminal; the exit code is there unless 0.
type step struct {
	comment string // lines before the command, as they stand
	version string // "" = all
	command string
	output  string
}

var stepLine = regexp.MustCompile(`^\$([0-9.]*) (.*)$`)

func parseSession(text string) []step {
	var steps []step
	comment := ""
	for line := range strings.Lines(text) {
		if m := stepLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			steps = append(steps, step{comment: comment, version: m[1], command: m[2]})
			comment = ""
		} else if strings.HasPrefix(line, "# ") || len(steps) == 0 {
			comment += line
		} else {
			steps[len(steps)-1].output += line
		}
	}
	return steps
}

func (s step) String() string {
	return fmt.Sprintf("%s$%s %s\n%s", s.comment, s.version, s.command, s.output)
}

// slow is a command that a reader of a slow test wants to know of.
const slow = 10 * time.Second

// session runs the commands of a file and prints the file with what they print
// now: "session FILE" and "cmp stdout FILE" say where the two differ.
func session(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: session FILE")
	}
	clean := cleaner(ts)
	for _, s := range parseSession(ts.ReadFile(args[0])) {
		if s.version == "" || s.version == ts.Getenv("KUBECTL_VERSION") {
			start := time.Now()
			s.output = clean(run(ts, s.command))
			if took := time.Since(start); took > slow {
				ts.Logf("%v for: %s", took.Round(time.Second), s.command)
			}
		}
		fmt.Fprint(ts.Stdout(), s)
	}
}

func run(ts *testscript.TestScript, command string) string {
	var out bytes.Buffer
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "KUBECONFIG", "NS", "WORK", "TMPDIR", "SERVER", "NODE1", "NODE2", "NODE2_PID"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if out.Len() > 0 && !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
		out.WriteByte('\n')
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		fmt.Fprintf(&out, "[exit %d]\n", exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%s: %v", command, err)
	}
	return out.String()
}

// what differs from one run to the next, and its name
var changing = []struct {
	what *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`), ""}, // what a terminal is told besides text
	{regexp.MustCompile(`(everywhere)-\w{5}\b`), "$1-RAND"},
	{regexp.MustCompile(`node-debugger-(NODE\d)-\w{5}`), "node-debugger-$1-RAND"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`), "TIME"},
	{regexp.MustCompile(`(resourceVersion"?: ?)"\d+"`), `${1}"RV"`},
	{regexp.MustCompile(`containerd://[0-9a-f]{64}`), "containerd://ID"},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:DIGEST"},
	{regexp.MustCompile(`\b10\.\d+\.\d+\.\d+\b`), "IP"},
	{regexp.MustCompile(`(NodePort: .*|nodePort: |\d:)3[0-2]\d{3}\b`), "${1}NODEPORT"},
	{regexp.MustCompile(`-[bcdf-hj-np-tv-z2456789]{8,10}-[bcdf-hj-np-tv-z2456789]{5}\b`), "-HASH-RAND"},
	{regexp.MustCompile(`([-=] ?|pod-template-hash: )[bcdf-hj-np-tv-z2456789]{8,10}\b`), "${1}HASH"},
	{regexp.MustCompile(`kube-api-access-\w{5}`), "kube-api-access-RAND"},
	{regexp.MustCompile(`X509SHA256=[0-9a-f]{64}`), "X509SHA256=DIGEST"},
	{regexp.MustCompile(`no new claims to deallocate, `), ""},                     // upstream, even where nobody claims anything
	{regexp.MustCompile(`( deleted| force deleted) from [\w-]+ namespace`), "$1"}, // not said by 1.32
	{regexp.MustCompile(`(?m)^ *creationTimestamp: null\n`), ""},                  // not said by 1.36
	{regexp.MustCompile(`ConfigMapOptional: +<nil>`), "Optional:  false"},         // so says 1.32
	{regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`), "TOKEN"},
	{regexp.MustCompile(`\bAge: +\d+[smhd]\d*[smhd]?`), "Age:  AGE"},
	{regexp.MustCompile(`(?m)(^|  )\d+[smh](\d+[sm])?( \(x\d+ over \d+[smh](\d+[sm])?\))?(  |\n)`), "${1}AGE${5}"},
	{regexp.MustCompile(`(\S)  +`), "$1  "},
	{regexp.MustCompile(`[ \t]+\n`), "\n"},
	{regexp.MustCompile(`(?m)^([$#])`), "\\$1"},
}

func cleaner(ts *testscript.TestScript) func(string) string {
	names := []string{ts.Getenv("WORK"), "$WORK", ts.Getenv("SERVER"), "SERVER", strings.TrimPrefix(ts.Getenv("SERVER"), "https://"), "SERVER"}
	for _, node := range []string{"NODE2", "NODE1"} { // the first is the beginning of the second
		if name := ts.Getenv(node); name != "" {
			names = append(names, name, node)
		}
	}
	known := strings.NewReplacer(names...)
	return func(out string) string {
		out = known.Replace(strings.ReplaceAll(out, "\r", ""))
		for _, c := range changing {
			out = c.what.ReplaceAllString(out, c.name)
		}
		return out
	}
}
