package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/cluster"
	"github.com/proa-dev/proa/internal/cluster/daemon"
	"github.com/proa-dev/proa/internal/cluster/host"
)

// Options of Up. Zero values mean the usual, or, of a cluster that is there, what
// it was made with.
type Options struct {
	Name       string
	DataDir    string
	Nodes      int
	HTTPPort   int
	HTTPSPort  int
	APIPort    int
	RuntimeDir string
	Program    string // proa itself
	Say        func(line string)
}

// Up starts a local cluster, or makes it when there is none, and waits until
// its nodes are ready. One that runs already is left as it is.
func Up(ctx context.Context, o Options) (*Status, error) {
	s, fresh, err := o.spec()
	if err != nil {
		return nil, err
	}
	running := daemon.Find(s.serverPID())
	if running != nil {
		running.Close()
	} else if err := s.prepare(ctx, o, fresh); err != nil {
		return nil, err
	}
	err = s.awaitAPI(ctx)
	if errors.Is(err, errEnded) && running != nil { // it was about to stop
		running = nil
		if err = s.prepare(ctx, o, fresh); err == nil {
			err = s.awaitAPI(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	if running == nil {
		o.Say("the API answers at " + s.Server())
	}
	file, err := merge(s.Context(), s.AdminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("the kubeconfig: %w", err)
	}
	if err := s.upNodes(ctx, o); err != nil {
		return nil, err
	}
	if err := s.awaitNodes(ctx, o.Say); err != nil {
		return nil, err
	}
	st, err := s.Status(ctx)
	if err == nil {
		st.Kubeconfig = file
	}
	return st, err
}

// spec of the cluster that is there, or of a new one.
func (o *Options) spec() (s *Spec, fresh bool, err error) {
	if s, err = Load(o.Name); err != nil {
		return nil, false, err
	}
	if s == nil {
		others, err := All()
		if err != nil {
			return nil, false, err
		}
		s = &Spec{Name: o.Name, DataDir: o.DataDir, Nodes: o.Nodes, APIPort: o.APIPort, HTTPPort: o.HTTPPort, HTTPSPort: o.HTTPSPort}
		return s, true, s.complete(others)
	}
	if o.DataDir != "" {
		if dir, err := filepath.Abs(o.DataDir); err != nil || dir != s.DataDir {
			return nil, false, fmt.Errorf("the cluster %q is in %s already: leave --data-dir out, or choose another --name", s.Name, s.DataDir)
		}
	}
	for _, want := range []struct{ now, new int }{{s.APIPort, o.APIPort}, {s.HTTPPort, o.HTTPPort}, {s.HTTPSPort, o.HTTPSPort}} {
		if want.new != 0 && want.new != want.now {
			return nil, false, fmt.Errorf(`the cluster %q was made with port %d instead of %d: leave the flag out, or "proa delete" it first`, s.Name, want.now, want.new)
		}
	}
	if o.Nodes > s.Nodes {
		s.Nodes = o.Nodes
		return s, false, s.save()
	}
	return s, false, nil
}

// prepare the machine and start the server.
func (s *Spec) prepare(ctx context.Context, o Options, fresh bool) error {
	err := host.Check(ctx, []host.Port{
		{Number: s.APIPort, What: "the API", Flag: "--api-port"},
		{Number: s.HTTPPort, What: "HTTP to Ingresses", Flag: "--http-port"},
		{Number: s.HTTPSPort, What: "HTTPS to Ingresses", Flag: "--https-port"},
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(o.Program); err != nil {
		return err
	}
	if fresh {
		o.Say(fmt.Sprintf("making the cluster %s in %s", s.Name, s.DataDir))
	} else {
		o.Say(fmt.Sprintf("starting the cluster %s in %s", s.Name, s.DataDir))
	}
	if err := s.save(); err != nil {
		return err
	}
	if err := shareNames(); err != nil {
		return fmt.Errorf("%s: %w", namesDir, err)
	}
	if err := s.ensureBridge(ctx); err != nil {
		return err
	}
	p, err := daemon.Start(s.serverPID(), s.ServerLog(), exec.Command(o.Program, s.serverArgs(o.RuntimeDir)...))
	if err != nil {
		return err
	}
	p.Close()
	return nil
}

func (s *Spec) serverArgs(runtimeDir string) []string {
	args := []string{
		"server", "--cluster-name", s.Name, "--data-dir", s.DataDir,
		"--secure-port", strconv.Itoa(s.APIPort), "--advertise-address", s.Address(1),
		"--service-cluster-ip-range", s.serviceRange(), "--cluster-cidr", s.podRange(), "--service-node-port-range", s.nodePorts(),
		"--node-name", s.NodeName(1), "--node-ip", s.Address(1), "--kubelet-port", strconv.Itoa(s.Kubelet),
		"--http-port", strconv.Itoa(s.HTTPPort), "--https-port", strconv.Itoa(s.HTTPSPort),
		"--cgroup-root", s.cgroup(1), "--localhost-nodeports",
	}
	if runtimeDir != "" {
		args = append(args, "--runtime-dir", runtimeDir)
	}
	return args
}

var errEnded = errors.New("the server has ended")

// awaitAPI waits until the server answers that it is ready, or has ended.
func (s *Spec) awaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("the server is not ready after a minute; see %s", s.ServerLog()))
	defer cancel()
	for {
		if c, err := s.client(); err == nil {
			if _, err := c.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil {
				return nil
			}
		}
		p := daemon.Find(s.serverPID())
		if p == nil {
			return fmt.Errorf("%w: %s", errEnded, lastLines(s.ServerLog()))
		}
		p.Close()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Spec) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.AdminKubeconfig())
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

func lastLines(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "\n  ") + "\n  (" + file + ")"
}

// upNodes starts the agents of the second node and those after it.
func (s *Spec) upNodes(ctx context.Context, o Options) error {
	for i := 2; i <= s.Nodes; i++ {
		if p := daemon.Find(s.agentPID(i)); p != nil {
			p.Close()
			continue
		}
		o.Say("starting node " + s.NodeName(i))
		if err := s.ensureNode(i); err != nil {
			return err
		}
		args := []string{
			"agent", "--cluster-name", s.Name, "--server", s.Server(), "--data-dir", s.nodeDir(i),
			"--node-name", s.NodeName(i), "--node-ip", s.Address(i), "--cgroup-root", s.cgroup(i),
		}
		if o.RuntimeDir != "" {
			args = append(args, "--runtime-dir", o.RuntimeDir)
		}
		cmd := exec.Command(o.Program, args...)
		cmd.Env = os.Environ()
		if _, err := os.Stat(filepath.Join(s.nodeDir(i), "agent", "pki", "client.crt")); err != nil {
			token, err := cluster.CreateToken(ctx, s.AdminKubeconfig(), cluster.TokenOptions{TTL: time.Hour, Description: "node " + s.NodeName(i)})
			if err != nil {
				return err
			}
			// Not as an argument: every user of the machine can read those.
			cmd.Env = append(cmd.Env, "PROA_TOKEN="+token)
		}
		p, err := s.startIn(i, cmd)
		if err != nil {
			return fmt.Errorf("node %s: %w", s.NodeName(i), err)
		}
		p.Close()
	}
	return nil
}

// awaitNodes waits until all nodes are ready.
func (s *Spec) awaitNodes(ctx context.Context, say func(string)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not all nodes are ready after two minutes"))
	defer cancel()
	c, err := s.client()
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for ctx.Err() == nil {
		// A watch begins with what is there.
		w, err := c.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		for event := range w.ResultChan() {
			node, ok := event.Object.(*corev1.Node)
			if !ok {
				continue
			}
			if now := Ready(node); now && !ready[node.Name] {
				say("node " + node.Name + " is ready")
			}
			ready[node.Name] = Ready(node)
			if s.allReady(ready) {
				w.Stop()
				return nil
			}
			if err := s.agentsRun(); err != nil {
				w.Stop()
				return err
			}
		}
	}
	return fmt.Errorf("%w: see %s", context.Cause(ctx), s.ServerLog())
}

func (s *Spec) allReady(ready map[string]bool) bool {
	for i := 1; i <= s.Nodes; i++ {
		if !ready[s.NodeName(i)] {
			return false
		}
	}
	return true
}

func (s *Spec) agentsRun() error {
	for i := 2; i <= s.Nodes; i++ {
		p := daemon.Find(s.agentPID(i))
		if p == nil {
			return fmt.Errorf("the agent of %s has ended: %s", s.NodeName(i), lastLines(s.agentLog(i)))
		}
		p.Close()
	}
	return nil
}

// Ready says whether a node is.
func Ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
