package kubectl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"time"
)

// patience is how long "eventually" waits, on a machine that may be busy.
const patience = 90 * time.Second

// eventually runs a command until what it prints matches an expression, or for so
// long, and prints what it printed last: for what becomes so by itself.
func eventually(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: eventually EXPRESSION COMMAND [ARGUMENT…]")
		return 2
	}
	want, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return repeat(args[1:], want.Match, os.Stdout)
}

// settled waits until controllers have seen what was asked of an object. It says
// nothing.
func settled(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: settled KIND/NAME")
		return 2
	}
	return repeat([]string{"kubectl", "get", args[0], "-o", "jsonpath={.metadata.generation} {.status.observedGeneration}"}, func(out []byte) bool {
		asked, seen, ok := bytes.Cut(out, []byte(" "))
		return ok && len(asked) > 0 && bytes.Equal(asked, seen)
	}, io.Discard)
}

// repeat a command until its output is good, and show that.
func repeat(command []string, good func([]byte) bool, show io.Writer) int {
	for end := time.Now().Add(patience); ; {
		var out bytes.Buffer
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		var exit *exec.ExitError
		code := 0
		switch {
		case errors.As(err, &exit):
			code = exit.ExitCode()
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			return 125
		}
		if good(out.Bytes()) || time.Now().After(end) {
			show.Write(out.Bytes()) //nolint:errcheck // the session sees it
			return code
		}
		time.Sleep(50 * time.Millisecond)
	}
}
