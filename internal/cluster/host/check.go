// Package host knows what a machine must have to be a node, and says what is
// missing and what to do about it.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Problem that keeps something from running here, and what to do.
type Problem struct {
	What string `json:"what"`
	Do   string `json:"do"`
}

// Problems as one error.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.What + ": " + one.Do
	}
	return strings.Join(lines, "\n")
}

// Port that must be free, and the flag that chooses another.
type Port struct {
	Number int
	What   string
	Flag   string
}

// Check whether this machine can be a node whose ports are these. It returns
// nil or Problems, all of them at once.
func Check(ctx context.Context, ports []Port) error {
	if os.Geteuid() != 0 {
		return Problems{{"a node needs root", `run it with sudo, or run the control plane alone: "proa server --disable-agent"`}}
	}
	var p Problems
	add := func(problem *Problem) {
		if problem != nil {
			p = append(p, *problem)
		}
	}
	add(checkNFT(ctx))
	for _, missing := range missingControllers("/sys/fs/cgroup") {
		p = append(p, missing)
	}
	add(checkFile("/proc/sys/net/ipv4/ip_forward", "this kernel cannot forward packets", "use a kernel with IPv4 networking"))
	for _, port := range ports {
		add(checkPort(port))
	}
	if len(p) == 0 {
		return nil
	}
	return p
}

func checkFile(file, what, do string) *Problem {
	if _, err := os.Stat(file); err != nil {
		return &Problem{what, do}
	}
	return nil
}

func checkNFT(ctx context.Context) *Problem {
	if _, err := exec.LookPath("nft"); err != nil {
		return &Problem{"the program nft is missing", "install the package nftables (apt-get install nftables)"}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "nft", "list", "tables").CombinedOutput(); err != nil {
		return &Problem{"nftables does not work here (" + strings.TrimSpace(string(out)) + ")",
			"use a kernel with nf_tables, and CAP_NET_ADMIN when in a container"}
	}
	return nil
}

// missingControllers of the cgroup hierarchy at a folder.
func missingControllers(root string) (p []Problem) {
	if _, err := os.Stat(root); err != nil {
		return []Problem{{"there is no cgroup file system at " + root, "mount it: mount -t cgroup2 none " + root}}
	}
	unified, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	for _, c := range []string{"cpu", "memory", "pids"} {
		if err == nil && !contains(strings.Fields(string(unified)), c) {
			p = append(p, Problem{"the cgroup controller " + c + " is off",
				"start the kernel with cgroup_enable=" + c + ", or give it to this cgroup in cgroup.subtree_control"})
		}
		if _, stat := os.Stat(filepath.Join(root, c)); err != nil && stat != nil {
			p = append(p, Problem{"the cgroup controller " + c + " is not mounted at " + filepath.Join(root, c),
				"mount it (mount -t cgroup -o " + c + " none " + filepath.Join(root, c) + "), or start the kernel with cgroup_enable=" + c})
		}
	}
	return p
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func checkPort(p Port) *Problem {
	if p.Number <= 0 || Free(p.Number) {
		return nil
	}
	return &Problem{fmt.Sprintf("port %d, for %s, is in use", p.Number, p.What), "stop what uses it (ss -ltnp), or choose another with " + p.Flag}
}

// Free says whether a TCP port can be listened on, on all addresses.
func Free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return !errors.Is(err, syscall.EADDRINUSE)
	}
	_ = l.Close()
	return true
}
