package local

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/cluster/daemon"
)

// Status of a local cluster.
type Status struct {
	Name       string       `json:"name"`
	State      string       `json:"state"` // Running, Starting, Stopped
	Server     string       `json:"server"`
	Ingress    string       `json:"ingress"`
	DataDir    string       `json:"dataDir"`
	Context    string       `json:"context"`
	Kubeconfig string       `json:"kubeconfig"`
	PID        int          `json:"pid,omitempty"`
	Nodes      []NodeStatus `json:"nodes"`
}

// NodeStatus is a node of a local cluster.
type NodeStatus struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Address string `json:"address"`
	PID     int    `json:"pid,omitempty"`
}

// Status of the cluster now.
func (s *Spec) Status(ctx context.Context) (*Status, error) {
	st := &Status{
		Name: s.Name, State: "Stopped", Server: s.Server(), Ingress: s.IngressURL(), DataDir: s.DataDir,
		Context: s.Context(), Kubeconfig: s.AdminKubeconfig(),
	}
	for i := 1; i <= s.Nodes; i++ {
		st.Nodes = append(st.Nodes, NodeStatus{Name: s.NodeName(i), Address: s.Address(i), PID: s.pid(i)})
	}
	if st.PID = s.pid(1); st.PID == 0 {
		return st, nil
	}
	st.State = "Starting"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := s.client()
	if err != nil {
		return st, nil // no kubeconfig yet
	}
	nodes, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return st, nil
	}
	st.State = "Running"
	for _, n := range nodes.Items {
		for i := range st.Nodes {
			if st.Nodes[i].Name == n.Name {
				st.Nodes[i].Ready = Ready(&n)
			}
		}
	}
	return st, nil
}

func (s *Spec) pid(i int) int {
	file := s.serverPID()
	if i > 1 {
		file = s.agentPID(i)
	}
	p := daemon.Find(file)
	if p == nil {
		return 0
	}
	defer p.Close()
	return p.PID
}

// IngressURL is where Ingresses answer on this machine.
func (s *Spec) IngressURL() string {
	if s.HTTPPort == 80 {
		return "http://localhost"
	}
	return "http://localhost:" + itoa(s.HTTPPort)
}
