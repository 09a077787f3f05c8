// Package ipam gives pods of one node their addresses. A folder is the whole
// state: an address that is taken is a file of its name, in which its owner is
// written, so that what a killed program had taken is still known, and taking is
// one O_EXCL that only one of many can win. The files are those of CNI's
// host-local plugin, which can take over from here and the other way round.
package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lastPrefix of the files that name the address given out last from each range:
// the search goes on behind it, so that an address rests before it is used again.
const lastPrefix = "last_reserved_ip."

// lockFile is held by whoever takes addresses.
const lockFile = "lock"

// Owner of addresses: a network interface of a sandbox.
type Owner struct {
	Container, Interface string
}

func (o Owner) String() string { return o.Container + "\r\n" + o.Interface }

func parseOwner(data []byte) Owner {
	container, link, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	return Owner{strings.TrimSpace(container), strings.TrimSpace(link)}
}

// Store of the addresses of one network on one node. Any number of processes may
// use one folder at the same time.
type Store struct{ dir string }

// Open the store in a folder, which is made if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("addresses of pods: %w", err)
	}
	return &Store{dir}, nil
}

// Exhausted says that a range has no free address.
type Exhausted struct {
	Range netip.Prefix
	Taken int
	Dir   string
}

func (e *Exhausted) Error() string {
	return fmt.Sprintf("no address is free in %s, the range of this node: pods have all %d (see %s); delete pods of this node, or make the cluster with a smaller --node-cidr-mask-size, which gives each node more",
		e.Range, e.Taken, e.Dir)
}

// Gateway is the node's own address in a range, the first; pods get those after it.
func Gateway(r netip.Prefix) netip.Addr { return r.Masked().Addr().Next() }

// Take an address of each range for an owner: of all or of none. The error is an
// *Exhausted when a range is full.
func (s *Store) Take(owner Owner, ranges []netip.Prefix) (taken []netip.Addr, err error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer func() {
		if err != nil {
			for _, a := range taken {
				_ = os.Remove(s.file(a))
			}
			taken = nil
		}
	}()
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	for i, r := range ranges {
		a, err := s.next(owner, r.Masked(), filepath.Join(s.dir, lastPrefix+strconv.Itoa(i)), names)
		if err != nil {
			return taken, err
		}
		taken = append(taken, a)
	}
	return taken, nil
}

// next takes the first free address behind the one that was given out last.
func (s *Store) next(owner Owner, r netip.Prefix, last string, names map[string]bool) (netip.Addr, error) {
	first, end := Gateway(r).Next(), lastOf(r)
	if !r.Contains(first) || end.Less(first) {
		return netip.Addr{}, &Exhausted{r, 0, s.dir}
	}
	after := func(a netip.Addr) netip.Addr {
		if a = a.Next(); a.Less(first) || end.Less(a) {
			return first
		}
		return a
	}
	start := first
	if b, err := os.ReadFile(last); err == nil {
		if a, err := netip.ParseAddr(strings.TrimSpace(string(b))); err == nil {
			start = after(a)
		}
	}
	at := start
	for taken := 1; ; taken++ {
		if !names[at.String()] || s.empty(at) {
			if err := s.write(at, owner); err == nil {
				_ = os.WriteFile(last, []byte(at.String()), 0o600) // without it the next search only takes longer
				return at, nil
			} else if !errors.Is(err, fs.ErrExist) {
				return netip.Addr{}, fmt.Errorf("addresses of pods: %w", err)
			}
		}
		if at = after(at); at == start {
			return netip.Addr{}, &Exhausted{r, taken, s.dir}
		}
	}
}

// lastOf a range that a pod may have: for IPv4 not the broadcast address.
func lastOf(r netip.Prefix) netip.Addr {
	b := r.Addr().AsSlice()
	for i := r.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	if a.Is4() {
		return a.Prev()
	}
	return a
}

// empty removes the file of an address whose taker was killed between making and
// filling it. The lock is held, so that nobody is between the two now.
func (s *Store) empty(a netip.Addr) bool {
	info, err := os.Lstat(s.file(a))
	return err == nil && info.Size() == 0 && os.Remove(s.file(a)) == nil
}

func (s *Store) write(a netip.Addr, owner Owner) error {
	f, err := os.OpenFile(s.file(a), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(owner.String())
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Free what an owner has. likely are addresses it probably has: if these are its
// own, the others need not be looked at.
func (s *Store) Free(owner Owner, likely ...netip.Addr) error {
	freed := false
	for _, a := range likely {
		ok, err := s.free(a.String(), owner)
		if err != nil {
			return err
		}
		freed = freed || ok
	}
	if freed {
		return nil
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	for name := range names {
		if _, err := s.free(name, owner); err != nil {
			return err
		}
	}
	return nil
}

// free one address, if the owner has it.
func (s *Store) free(name string, owner Owner) (bool, error) {
	path := filepath.Join(s.dir, name)
	data, err := os.ReadFile(path)
	if err != nil || parseOwner(data) != owner {
		return false, ignoreMissing(err)
	}
	return true, ignoreMissing(os.Remove(path))
}

// Owned says which addresses an owner has.
func (s *Store) Owned(owner Owner) ([]netip.Addr, error) {
	all, err := s.All()
	var own []netip.Addr
	for a, o := range all {
		if o == owner {
			own = append(own, a)
		}
	}
	return own, err
}

// All addresses that are taken, and by whom.
func (s *Store) All() (map[netip.Addr]Owner, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	all := map[netip.Addr]Owner{}
	for name := range names {
		if data, err := os.ReadFile(filepath.Join(s.dir, name)); err == nil && len(data) > 0 {
			a, _ := netip.ParseAddr(name)
			all[a] = parseOwner(data)
		}
	}
	return all, nil
}

// Collect frees what owners had that are not kept, of whom nobody will say that
// they are gone. What was taken after before stays: its owner may be on its way.
// It returns those owners.
func (s *Store) Collect(keep func(Owner) bool, before time.Time) ([]Owner, error) {
	all, err := s.All()
	if err != nil {
		return nil, err
	}
	var gone []Owner
	for a, owner := range all {
		if info, err := os.Lstat(s.file(a)); err != nil || info.ModTime().After(before) || keep(owner) {
			continue
		}
		if _, err := s.free(a.String(), owner); err != nil {
			return gone, err
		}
		gone = append(gone, owner)
	}
	return gone, nil
}

func (s *Store) file(a netip.Addr) string { return filepath.Join(s.dir, a.String()) }

// names of the files that are addresses.
func (s *Store) names() (map[string]bool, error) {
	f, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("addresses of pods: %w", err)
	}
	defer f.Close()
	list, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("addresses of pods: %w", err)
	}
	names := make(map[string]bool, len(list))
	for _, name := range list {
		if name != lockFile && !strings.HasPrefix(name, lastPrefix) {
			names[name] = true
		}
	}
	return names, nil
}

// lock the store against other takers; a lock of a killed process is gone with it.
func (s *Store) lock() (unlock func(), err error) {
	fd, err := unix.Open(filepath.Join(s.dir, lockFile), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("addresses of pods: lock in %s: %w", s.dir, err)
	}
	for {
		if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("addresses of pods: lock in %s: %w", s.dir, err)
	}
	return func() { _ = unix.Close(fd) }, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
