package etcd

import (
	"path/filepath"

	"github.com/prometheus/procfs"
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
	self, err := procfs.Self()
	if err != nil {
		return
	}
	maps, err := self.ProcMaps()
	if err != nil {
		return
	}
	file := filepath.Join(s.room.dir, "db")
	for _, m := range maps {
		if m.Pathname == file && m.Perms.Read && !m.Perms.Write {
			// Pages that are a file's and that nobody writes to are only unmapped by this.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.StartAddr, m.EndAddr-m.StartAddr, unix.MADV_DONTNEED)
		}
	}
}
