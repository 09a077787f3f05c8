package cluster

import (
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long after the start the memory that only it needed is given back.
const settle = 10 * time.Second

// garbage that may lie about, in percent of what is in use. Most of what is in use are
// bytes that the collector need not look at, and parts that many objects share, so that
// it is done in half the time that Go reckons with.
const garbage = 50

// collectOften, unless whoever started this process knows better.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}

// giveBack what the start needed: the heap's free pages, and the pages of the
// program itself that were mapped on the way. Measured: 120 MB resident before,
// 60 after. Those of the program are in the page cache and come back when they
// are touched.
func giveBack(ctx context.Context) error {
	collectOften()
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return nil
	}
	debug.FreeOSMemory()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil
	}
	for _, r := range cleanPages(string(smaps), self) {
		// Pages that are a file's are only unmapped by this.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED)
	}
	return nil
}

// span of addresses.
type span struct{ from, to uintptr }

// cleanPages are the mappings of a program that cannot be written and of which no
// page differs from the file: a loader may have relocated some (in a program that
// is position-independent or uses C), and those must stay. smaps is what
// /proc/PID/smaps says (proc_pid_smaps(5)).
func cleanPages(smaps, program string) (clean []span) {
	var at *span
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if from, to, head := strings.Cut(fields[0], "-"); head { // FROM-TO PERMISSIONS OFFSET DEVICE INODE PATH
			at = nil
			a, errA := strconv.ParseUint(from, 16, 64)
			b, errB := strconv.ParseUint(to, 16, 64)
			if errA == nil && errB == nil && a < b && len(fields) >= 6 && fields[5] == program && !strings.Contains(fields[1], "w") {
				at = &span{uintptr(a), uintptr(b)}
			}
			continue
		}
		if at != nil && fields[0] == "Anonymous:" { // in kB: pages that are no longer the file's
			if fields[1] == "0" {
				clean = append(clean, *at)
			}
			at = nil
		}
	}
	return clean
}
