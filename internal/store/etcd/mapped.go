package etcd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mappedMost is how many bytes are written before the pages of the file that were
// mapped meanwhile are let go.
const mappedMost = 8 << 20

// letGo of the file's pages. bbolt maps its file, and etcd has all of it mapped in
// whenever it grows; what is written comes to lie in these pages, history included.
// They are the page cache's, which keeps them as it does those of any file; only what
// is used is mapped in again, at about a microsecond for 16 pages.
func (s *embedded) letGo() {
	tx := s.Backend().ReadTx()
	tx.RLock() // as long as somebody may read by it, the mapping stays where it is
	defer tx.RUnlock()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for _, m := range mappings(string(maps), filepath.Join(s.room.dir, "db")) {
		// Pages that are a file's and that nobody writes to are only unmapped by this.
		unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// span of addresses.
type span struct{ from, to uintptr }

// mappings of a file that cannot be written through. maps is what /proc/PID/maps
// says (proc_pid_maps(5)).
func mappings(maps, file string) (all []span) {
	for line := range strings.Lines(maps) {
		line = strings.TrimSuffix(line, "\n")
		var m span
		var mode string
		if !strings.HasSuffix(line, " "+file) {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x %s", &m.from, &m.to, &mode); err == nil && strings.HasPrefix(mode, "r-") {
			all = append(all, m)
		}
	}
	return all
}
