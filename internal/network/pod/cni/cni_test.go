package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-dev/proa/internal/network/nettest"
	"github.com/proa-dev/proa/internal/network/pod/ipam"
)

// TestMain is the plugin itself where a test starts it as one, to kill it.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(Main(os.Getenv, os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// node runs the plugin on a node of its own.
type node struct {
	t    *testing.T
	ns   *nettest.NS
	conf map[string]any
}

func newNode(t *testing.T, subnets ...string) *node {
	n := &node{t, nettest.New(t), map[string]any{"cniVersion": "1.1.0", "name": "net", "type": "proa-cni", "mtu": 1400, "dataDir": t.TempDir(), "subnets": subnets}}
	n.ns.Sysctl("net/ipv4/ip_forward", "1")
	return n
}

func (n *node) env(command, id, netns string) map[string]string {
	return map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": id, "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
}

func (n *node) call(command, id, netns string) (*Result, *Error) {
	n.t.Helper()
	var out bytes.Buffer
	code := 0
	in, err := json.Marshal(n.conf)
	if err != nil {
		n.t.Fatal(err)
	}
	env := n.env(command, id, netns)
	n.ns.Do(func() { code = Main(func(k string) string { return env[k] }, bytes.NewReader(in), &out) })
	r, e := &Result{}, &Error{}
	if code != 0 {
		if err := json.Unmarshal(out.Bytes(), e); err != nil {
			n.t.Fatalf("%s: %s: %v", command, out.String(), err)
		}
		return nil, e
	}
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), r); err != nil {
			n.t.Fatalf("%s: %s: %v", command, out.String(), err)
		}
	}
	return r, nil
}

func (n *node) add(id string, pod *nettest.NS) *Result {
	n.t.Helper()
	r, err := n.call("ADD", id, pod.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *node) del(id, netns string) {
	n.t.Helper()
	if _, err := n.call("DEL", id, netns); err != nil {
		n.t.Fatal(err)
	}
}

// clean says that nothing of any pod is left.
func (n *node) clean() {
	n.t.Helper()
	if links := n.ns.Run("ip", "-brief", "link"); strings.Contains(links, "veth") {
		n.t.Errorf("left: %s", links)
	}
	if routes := n.ns.Run("ip", "route"); routes != "" {
		n.t.Errorf("left: %s", routes)
	}
	if all, err := n.store().All(); err != nil || len(all) > 0 {
		n.t.Errorf("left: %v %v", all, err)
	}
}

func (n *node) store() *ipam.Store {
	s, err := ipam.Open(filepath.Join(n.conf["dataDir"].(string), "net"))
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// ask until there is an answer: the kernel takes a moment, longer on a busy
// machine, until it notices that a pair has both its ends.
func ask(t *testing.T, from *nettest.NS, addr, want string) {
	t.Helper()
	for began := time.Now(); ; {
		got, err := from.Ask("tcp", addr)
		if err == nil && got == want {
			return
		}
		if err == nil || time.Since(began) > 20*time.Second {
			t.Errorf("%s: got %q, %v; want %q", addr, got, err, want)
			return
		}
	}
}

func TestPodsAreJoined(t *testing.T) {
	nettest.NeedNFT(t)
	n := newNode(t, "10.1.2.0/24", "fd00:1::/64")
	n.ns.Sysctl("net/ipv6/conf/all/forwarding", "1")
	a, b := nettest.New(t), nettest.New(t)
	a.Sysctl("net/ipv6/conf/default/disable_ipv6", "1")
	r := n.add("a", a)
	if got := fmt.Sprint(r.IPs); got != "[{ 1 10.1.2.2/32 10.1.2.1} { 1 fd00:1::2/128 fd00:1::1}]" {
		t.Error(got)
	}
	if len(r.Interfaces) != 2 || r.Interfaces[1].Name != "eth0" || r.Interfaces[1].Sandbox != a.Path() || !strings.Contains(a.Run("ip", "link"), r.Interfaces[1].MAC) {
		t.Errorf("%+v", r.Interfaces)
	}
	n.add("b", b)
	a.ServeTCP(":80", "a")
	n.ns.ServeTCP(":80", "node")
	ask(t, b, "10.1.2.2:80", "a 10.1.2.3")
	ask(t, b, "[fd00:1::2]:80", "a fd00:1::3")
	ask(t, n.ns, "10.1.2.2:80", "a 10.1.2.1")
	ask(t, b, "10.1.2.1:80", "node 10.1.2.3")
	ask(t, b, "[fd00:1::1]:80", "node fd00:1::3")
	for _, ns := range []*nettest.NS{a, n.ns} {
		if out := ns.Run("ip", "link"); strings.Count(out, "mtu 1400") == 0 {
			t.Errorf("MTU: %s", out)
		}
	}
	n.conf["prevResult"] = r
	if _, err := n.call("CHECK", "a", a.Path()); err != nil {
		t.Error(err)
	}
	a.Run("ip", "addr", "del", "10.1.2.2/32", "dev", "eth0")
	if _, err := n.call("CHECK", "a", a.Path()); err == nil || !strings.Contains(err.Msg, "10.1.2.2") {
		t.Error(err)
	}
	n.del("a", a.Path())
	n.del("a", a.Path())
	delete(n.conf, "prevResult")
	n.del("b", "") // of a pod whose namespace is gone
	n.del("never", "/run/netns/never")
	n.clean()
}

// A pod that other plugins have joined is left as well: one changes over from
// them while pods run.
func TestDeletesWhatOthersMade(t *testing.T) {
	nettest.NeedNFT(t)
	n := newNode(t, "10.1.2.0/24")
	pod := n.ns.Pod("veth1234", "10.1.2.2", "10.1.2.1")
	if err := os.WriteFile(filepath.Join(n.conf["dataDir"].(string), "10.1.2.2"), []byte("old\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.del("old", pod.Path())
	n.clean()
}

func TestErrors(t *testing.T) {
	n := &node{t: t}
	for _, c := range []struct {
		command string
		conf    map[string]any
		code    int
		want    string
	}{
		{"ADD", map[string]any{"cniVersion": "2.0.0"}, codeVersion, "1.1.0"},
		{"ADD", map[string]any{"name": "../x"}, codeConfig, "../x"},
		{"ADD", map[string]any{"dataDir": "data"}, codeConfig, "dataDir"},
		{"ADD", map[string]any{"subnets": []string{}}, codeConfig, "10.244.1.0/24"},
		{"ADD", map[string]any{"subnets": []string{"10.1.2.0"}}, codeDecode, "10.1.2.0"},
		{"ADD", map[string]any{}, codeFailed, "network namespace"},
		{"STATUS", map[string]any{"subnets": []string{"10.1.2.0/32"}}, codeUnavailable, "10.1.2.0/32"},
		{"STATUS", map[string]any{}, 0, ""},
		{"STOP", map[string]any{}, codeEnvironment, "STOP"},
	} {
		conf := map[string]any{"cniVersion": "1.0.0", "name": "net", "dataDir": t.TempDir(), "subnets": []string{"10.1.2.0/24"}}
		for k, v := range c.conf {
			conf[k] = v
		}
		in, _ := json.Marshal(conf)
		env := n.env(c.command, "id", "/no/such/namespace")
		var out bytes.Buffer
		code := Main(func(k string) string { return env[k] }, bytes.NewReader(in), &out)
		var e Error
		json.Unmarshal(out.Bytes(), &e)
		if code != min(c.code, 1) || e.Code != c.code || !strings.Contains(e.Msg, c.want) || code != 0 && e.CNIVersion == "" {
			t.Errorf("%s %v: %d %s", c.command, c.conf, code, out.String())
		}
	}
	var out bytes.Buffer
	if Main(func(k string) string { return map[string]string{"CNI_COMMAND": "VERSION"}[k] }, strings.NewReader(""), &out) != 0 || !strings.Contains(out.String(), `"supportedVersions":["0.3.0"`) {
		t.Error(out.String())
	}
}

func TestFullRangeSaysSo(t *testing.T) {
	nettest.NeedNFT(t)
	n := newNode(t, "10.1.2.0/30")
	n.add("a", nettest.New(t))
	_, err := n.call("ADD", "b", nettest.New(t).Path())
	if err == nil || err.Code != codeAgain || !strings.Contains(err.Msg, "no address is free in 10.1.2.0/30") {
		t.Fatal(err)
	}
	n.del("b", "")
	n.del("a", "")
	n.clean()
}

// What the runtime has no sandbox for goes; what is there or young stays.
func TestCollect(t *testing.T) {
	nettest.NeedNFT(t)
	n := newNode(t, "10.1.2.0/24")
	pods := map[string]*nettest.NS{}
	for _, id := range []string{"kept", "gone", "young"} {
		pods[id] = nettest.New(t)
		n.add(id, pods[id])
	}
	old := time.Now().Add(-2 * grace)
	for _, addr := range []string{"10.1.2.2", "10.1.2.3"} {
		if err := os.Chtimes(filepath.Join(n.conf["dataDir"].(string), "net", addr), old, old); err != nil {
			t.Fatal(err)
		}
	}
	n.conf["cni.dev/valid-attachments"] = []map[string]string{{"containerID": "kept", "ifname": "eth0"}}
	if _, err := n.call("GC", "", ""); err != nil {
		t.Fatal(err)
	}
	all, err := n.store().All()
	if err != nil || len(all) != 2 || all[netip.MustParseAddr("10.1.2.3")] != (ipam.Owner{}) {
		t.Error(all, err)
	}
	if out := n.ns.Run("ip", "-brief", "link"); strings.Count(out, "veth") != 2 {
		t.Error(out)
	}
	n.del("kept", "")
	n.del("young", "")
	n.clean()
}

// However early the plugin is killed, DEL mends it.
func TestKilledAtAnyMoment(t *testing.T) {
	nettest.NeedNFT(t)
	n := newNode(t, "10.1.2.0/28", "fd00:1::/64")
	in, err := json.Marshal(n.conf)
	if err != nil {
		t.Fatal(err)
	}
	pod := nettest.New(t)
	for i := range 40 {
		id := fmt.Sprint("pod", i)
		cmd := exec.Command(os.Args[0])
		cmd.Stdin = bytes.NewReader(in)
		for k, v := range n.env("ADD", id, pod.Path()) {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		n.ns.Do(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		killed := time.AfterFunc(time.Duration(i)*500*time.Microsecond, func() { cmd.Process.Kill() })
		cmd.Wait()
		killed.Stop()
		n.del(id, pod.Path())
		n.clean()
	}
}
