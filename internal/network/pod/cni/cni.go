// Package cni is a CNI plugin that joins pods to their node: a veth pair each, an
// address from package ipam, and a route there and back; no bridge, so that what
// pods say to each other goes through the node's routes like all else. It is one
// short process with all it needs in it, for a node starts it for each pod.
//
// It speaks the CNI specification 1.1.0 (ADD, DEL, CHECK, GC, STATUS, VERSION) and
// the two before it: https://www.cni.dev/docs/spec/. Its configuration has mtu,
// dataDir (where taken addresses are noted) and subnets (those pods get an address
// of, one each).
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/proa-dev/proa/internal/network/pod/ipam"
)

// Versions of the specification that are spoken, the oldest first.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// Codes of errors, as the specification numbers them.
const (
	codeVersion     = 1
	codeEnvironment = 4
	codeIO          = 5
	codeDecode      = 6
	codeConfig      = 7
	codeAgain       = 11
	codeUnavailable = 50
	codeFailed      = 100
)

// Error as a plugin prints it.
type Error struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

func (e *Error) Error() string { return e.Msg }

func fail(code int, format string, args ...any) error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Config is what the plugin is told on its standard input.
type Config struct {
	CNIVersion string         `json:"cniVersion"`
	Name       string         `json:"name"`
	MTU        int            `json:"mtu"`
	DataDir    string         `json:"dataDir"`
	Subnets    []netip.Prefix `json:"subnets"`
	PrevResult *Result        `json:"prevResult"`
	Valid      []struct {
		Container string `json:"containerID"`
		Interface string `json:"ifname"`
	} `json:"cni.dev/valid-attachments"`
}

// Result of ADD.
type Result struct {
	CNIVersion string      `json:"cniVersion"`
	Interfaces []Interface `json:"interfaces"`
	IPs        []IP        `json:"ips"`
	Routes     []Route     `json:"routes"`
	DNS        struct{}    `json:"dns"`
}

// Interface that was made; Sandbox is "" on the node.
type Interface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
}

// IP of the interface with an index in Result.Interfaces.
type IP struct {
	Version   string       `json:"version,omitempty"` // "4" or "6", before 1.0.0
	Interface int          `json:"interface"`
	Address   netip.Prefix `json:"address"`
	Gateway   netip.Addr   `json:"gateway"`
}

// Route in the pod.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Gw  netip.Addr   `json:"gw"`
}

// call is one run of the plugin.
type call struct {
	Config
	owner ipam.Owner
	netns string
	store *ipam.Store
}

// Main runs the plugin: env gives the environment's CNI_ variables. It returns
// the exit code.
func Main(env func(string) string, in io.Reader, out io.Writer) int {
	c := call{owner: ipam.Owner{Container: env("CNI_CONTAINERID"), Interface: env("CNI_IFNAME")}, netns: env("CNI_NETNS")}
	answer, err := c.run(env("CNI_COMMAND"), in)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Code: codeFailed, Msg: err.Error()}
		}
		if e.CNIVersion = c.CNIVersion; e.CNIVersion == "" {
			e.CNIVersion = versions[len(versions)-1]
		}
		_ = json.NewEncoder(out).Encode(e)
		return 1
	}
	if answer != nil {
		if err := json.NewEncoder(out).Encode(answer); err != nil {
			return 1
		}
	}
	return 0
}

func (c *call) run(command string, in io.Reader) (answer any, err error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, fail(codeIO, "the network configuration on standard input: %v", err)
	}
	if err := json.Unmarshal(data, &c.Config); err != nil && command != "VERSION" {
		return nil, fail(codeDecode, "the network configuration on standard input: %v", err)
	}
	if command == "VERSION" {
		return map[string]any{"cniVersion": versions[len(versions)-1], "supportedVersions": versions}, nil
	}
	if err := c.check(command); err != nil {
		return nil, err
	}
	if c.store, err = ipam.Open(filepath.Join(c.DataDir, c.Name)); err != nil {
		return nil, fail(codeIO, "%v", err)
	}
	switch command {
	case "ADD":
		return c.add()
	case "DEL":
		return nil, c.del()
	case "CHECK":
		return nil, c.verify()
	case "GC":
		return nil, c.collect()
	case "STATUS":
		return nil, c.status()
	}
	return nil, fail(codeEnvironment, "CNI_COMMAND is %q; it has to be ADD, DEL, CHECK, GC, STATUS or VERSION", command)
}

// check the configuration and the environment.
func (c *call) check(command string) error {
	switch {
	case !slices.Contains(versions, c.CNIVersion):
		return fail(codeVersion, "cniVersion %q is not spoken, only %v", c.CNIVersion, versions)
	case c.Name == "" || filepath.Base(c.Name) != c.Name:
		return fail(codeConfig, "name %q of the network cannot be the name of a folder", c.Name)
	case !filepath.IsAbs(c.DataDir):
		return fail(codeConfig, "dataDir %q has to be a folder's path from the root", c.DataDir)
	case len(c.Subnets) == 0 && (command == "ADD" || command == "STATUS"):
		return fail(codeConfig, `no subnets: write those that pods get addresses of, such as "subnets": ["10.244.1.0/24"]`)
	case command == "GC" || command == "STATUS":
		return nil
	case c.owner.Container == "" || c.owner.Interface == "":
		return fail(codeEnvironment, "CNI_CONTAINERID and CNI_IFNAME have to be set")
	case c.netns == "" && command != "DEL":
		return fail(codeEnvironment, "CNI_NETNS has to be the path of a network namespace")
	}
	return nil
}

// addresses that a pod has, with their gateways.
func (c *call) plan(addrs []netip.Addr) []IP {
	ips := make([]IP, len(addrs))
	for i, a := range addrs {
		ips[i] = IP{Interface: 1, Address: netip.PrefixFrom(a, a.BitLen()), Gateway: ipam.Gateway(c.Subnets[i])}
		if c.CNIVersion[0] == '0' {
			ips[i].Version = map[bool]string{true: "4", false: "6"}[a.Is4()]
		}
	}
	return ips
}

func (c *call) add() (*Result, error) {
	addrs, err := c.store.Take(c.owner, c.Subnets)
	if err != nil {
		if full := (*ipam.Exhausted)(nil); errors.As(err, &full) {
			return nil, fail(codeAgain, "%v", err)
		}
		return nil, fail(codeIO, "%v", err)
	}
	r := &Result{CNIVersion: c.CNIVersion, IPs: c.plan(addrs)}
	for _, ip := range r.IPs {
		r.Routes = append(r.Routes, Route{netip.PrefixFrom(unspecified(ip.Gateway), 0), ip.Gateway})
	}
	p := newPair(c.owner, c.MTU)
	if err := p.attach(c.netns, r.IPs); err != nil {
		return nil, errors.Join(err, c.store.Free(c.owner, addrs...))
	}
	r.Interfaces = []Interface{
		{Name: p.node, MAC: p.nodeMAC.String()},
		{Name: p.pod, MAC: p.podMAC.String(), Sandbox: c.netns},
	}
	return r, nil
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// del may be called at any time, and again: what is not there is as it should be.
func (c *call) del() error {
	if err := newPair(c.owner, c.MTU).detach(c.netns); err != nil {
		return err
	}
	var likely []netip.Addr
	if c.PrevResult != nil {
		for _, ip := range c.PrevResult.IPs {
			likely = append(likely, ip.Address.Addr())
		}
	}
	if err := c.store.Free(c.owner, likely...); err != nil {
		return fail(codeIO, "%v", err)
	}
	return nil
}

// verify that a pod has what ADD gave it.
func (c *call) verify() error {
	own, err := c.store.Owned(c.owner)
	if err != nil {
		return fail(codeIO, "%v", err)
	}
	if c.PrevResult != nil {
		for _, ip := range c.PrevResult.IPs {
			if !slices.Contains(own, ip.Address.Addr()) {
				return fmt.Errorf("%s is not noted in %s as that of %s", ip.Address.Addr(), c.DataDir, c.owner.Container)
			}
		}
	}
	if len(own) == 0 {
		return fmt.Errorf("%s has no address in %s", c.owner.Container, c.DataDir)
	}
	return newPair(c.owner, c.MTU).verify(c.netns, own)
}

// grace is how young an address may be and yet have an owner nobody knows of.
const grace = 2 * time.Minute

func (c *call) collect() error {
	valid := map[ipam.Owner]bool{}
	for _, v := range c.Valid {
		valid[ipam.Owner{Container: v.Container, Interface: v.Interface}] = true
	}
	_, err := Collect(c.store, func(o ipam.Owner) bool { return valid[o] })
	return err
}

// Collect takes away what pods have that are not kept: those of which nobody will
// say any more that they are gone. It returns their addresses' owners.
func Collect(s *ipam.Store, keep func(ipam.Owner) bool) ([]ipam.Owner, error) {
	gone, err := s.Collect(keep, time.Now().Add(-grace))
	for _, owner := range gone {
		err = errors.Join(err, newPair(owner, 0).detach(""))
	}
	return gone, err
}

func (c *call) status() error {
	for _, r := range c.Subnets {
		if !ipam.Gateway(r).IsValid() || !r.Contains(ipam.Gateway(r).Next()) {
			return fail(codeUnavailable, "%s has no address for a pod", r)
		}
	}
	return nil
}
