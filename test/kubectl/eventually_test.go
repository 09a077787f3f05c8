package kubectl

import (
	"bytes"
	"errors"
	"fmt"
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
	for end := time.Now().Add(patience); ; {
		var out bytes.Buffer
		cmd := exec.Command(args[1], args[2:]...)
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
		if want.Match(out.Bytes()) || time.Now().After(end) {
			os.Stdout.Write(out.Bytes()) //nolint:errcheck // the session sees it
			return code
		}
		time.Sleep(50 * time.Millisecond)
	}
}
