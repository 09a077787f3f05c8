package kubectl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programs of the sessions besides kubectl: this one, when it is called so.
var programs = map[string]func(args []string) int{"tty": tty, "eventually": eventually, "settled": settled}

func TestMain(m *testing.M) {
	if run, ok := programs[filepath.Base(os.Args[0])]; ok {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// typing is how long what somebody at a terminal waits for may take.
const typing = 60 * time.Second

// tty runs a command on a terminal of its own of 80 columns and 24 rows, plays
// what somebody does at it, and shows what is seen there:
//
//	< TEXT          waits until TEXT is to be seen, after what was waited for before;
//	                \r\n is the end of a line
//	> TEXT          types TEXT and Enter
//	^ C             types Control and C
//	size COLS ROWS  changes the size of the window
//	forget          what was seen so far is not shown: what is typed before a command
//	                takes the terminal over is seen once or twice
func tty(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: tty SCRIPT COMMAND [ARGUMENT…]")
		return 2
	}
	code, err := onTerminal(args[0], exec.Command(args[1], args[2:]...))
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ntty:", err)
		return 125
	}
	return code
}

func onTerminal(script string, cmd *exec.Cmd) (int, error) {
	text, err := os.ReadFile(script)
	if err != nil {
		return 0, err
	}
	ours, theirs, err := openTerminal()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	if err := resize(ours, 80, 24); err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	theirs.Close()
	seen := newScreen()
	shown := make(chan struct{})
	go func() { defer close(shown); io.Copy(seen, ours); seen.end() }() //nolint:errcheck // it ends with the command
	played := act(string(text), ours, seen)
	if played != nil {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
	}
	err = cmd.Wait()
	<-shown
	fmt.Print(seen.all[seen.from:])
	var exit *exec.ExitError
	if errors.As(err, &exit) && played == nil {
		return exit.ExitCode(), nil
	}
	return 0, errors.Join(played, err)
}

// openTerminal is a new pair of pseudo-terminals.
func openTerminal() (ours, theirs *os.File, err error) {
	ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		theirs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		ours.Close()
	}
	return ours, theirs, err
}

func resize(f *os.File, cols, rows uint16) error {
	return unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
}

// act does what one script says.
func act(script string, to *os.File, seen *screen) error {
	for lines := bufio.NewScanner(strings.NewReader(script)); lines.Scan(); {
		what, text, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch what {
		case "":
		case "<":
			err = seen.wait(strings.ReplaceAll(text, `\r\n`, "\r\n"))
		case ">":
			_, err = io.WriteString(to, text+"\r")
		case "^":
			_, err = to.Write([]byte{text[0] & 0x1f})
		case "forget":
			seen.forget()
		case "size":
			var cols, rows uint16
			if _, err = fmt.Sscan(text, &cols, &rows); err == nil {
				err = resize(to, cols, rows)
			}
		default:
			err = fmt.Errorf("%q is none of < > ^ size forget", what)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
	}
	return nil
}

// screen is what has been seen on a terminal.
type screen struct {
	mu    sync.Mutex
	more  *sync.Cond
	all   string
	at    int // up to which it was waited for
	from  int // which it is shown from
	ended bool
}

func newScreen() *screen {
	s := &screen{}
	s.more = sync.NewCond(&s.mu)
	return s
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all += string(b)
	s.more.Broadcast()
	return len(b), nil
}

// forget what was waited for.
func (s *screen) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = s.at
}

func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.more.Broadcast()
}

// wait until a text is seen.
func (s *screen) wait(text string) error {
	late := false
	timer := time.AfterFunc(typing, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.more.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if i := strings.Index(s.all[s.at:], text); i >= 0 {
			s.at += i + len(text)
			return nil
		}
		if s.ended {
			return errors.New("not seen before the command ended")
		}
		if late {
			return fmt.Errorf("not seen within %v, but %q", typing, s.all[s.at:])
		}
		s.more.Wait()
	}
}
