package plane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Plane is a control plane that runs.
type Plane struct {
	Kubeconfig string // of its administrator
	Ready      time.Duration
	dir        string
	parts      []*Process
}

// PIDs of its processes.
func (p *Plane) PIDs() (pids []int) {
	for _, part := range p.parts {
		pids = append(pids, part.PID)
	}
	return pids
}

// Stop its processes, the last that was started first, and remove its folder.
func (p *Plane) Stop() {
	for i := len(p.parts) - 1; i >= 0; i-- {
		p.parts[i].Stop()
	}
	_ = os.RemoveAll(p.dir)
}

// start one more part.
func (p *Plane) start(program string, args ...string) error {
	part, err := Start(p.dir, program, args...)
	if err == nil {
		p.parts = append(p.parts, part)
	}
	return err
}

// await that the API server says it is ready.
func (p *Plane) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("the API server is not ready after two minutes"))
	defer cancel()
	var client *kubernetes.Clientset
	for {
		if client == nil { // Proa writes its kubeconfig when it is ready
			if c, err := clientcmd.BuildConfigFromFlags("", p.Kubeconfig); err == nil {
				if client, err = kubernetes.NewForConfig(c); err != nil {
					return err
				}
			}
		}
		if client != nil {
			if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil {
				return nil
			}
		}
		for _, part := range p.parts {
			if err := part.Ended(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// begin makes the folder of a plane below a folder.
func begin(below string) (*Plane, error) {
	if err := os.MkdirAll(below, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(below, "plane-")
	return &Plane{dir: dir}, err
}

// fail stops what was started.
func (p *Plane) fail(err error) (*Plane, error) {
	if err == nil {
		return p, nil
	}
	p.Stop()
	return nil, err
}

// freePorts of this machine.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all were found, so that none is found twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
