package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/cluster/daemon"
	"github.com/proa-dev/proa/internal/cluster/pki"
)

// Ensure writes the configuration and starts containerd, or takes the one over
// that runs already; one that runs with another configuration is started anew,
// which the containers do not notice. It returns once the socket answers.
func (c *Config) Ensure(ctx context.Context) (*daemon.Process, error) {
	for _, dir := range []string{c.DataDir, c.RunDir, c.CNIConf} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	if err := c.inMemory(); err != nil {
		c.Log.Warn("the state of running containers is kept on a disk, which makes each pod's start slower", "folder", c.RunDir, "err", err)
	}
	if err := errors.Join(c.writeMirror(), c.writePauseProfile()); err != nil {
		return nil, err
	}
	text, err := c.render(c.look())
	if err != nil {
		return nil, err
	}
	old, _ := os.ReadFile(c.configFile())
	p := daemon.Find(c.pidFile())
	if p != nil && !bytes.Equal(old, text) {
		c.Log.Info("containerd is started anew with another configuration")
		if err := p.Stop(ctx, 10*time.Second); err != nil {
			return nil, err
		}
		p.Close()
		p = nil
	}
	if err := pki.WriteFile(c.configFile(), text, 0o644); err != nil {
		return nil, err
	}
	if p == nil {
		if p, err = c.start(); err != nil {
			return nil, err
		}
	} else {
		c.Log.Info("containerd runs already and is taken over", "pid", p.PID)
	}
	return p, c.answers(ctx, p)
}

// inMemory has a tmpfs below the state of running containers on machines whose
// /run is on a disk: it must not outlive the machine's next start, and a dozen
// files of each pod need not reach a disk. What is there already stays as it is.
func (c *Config) inMemory() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(c.RunDir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		return err
	}
	if there, err := os.ReadDir(c.RunDir); err != nil || len(there) > 0 {
		return err
	}
	return unix.Mount("tmpfs", c.RunDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0711")
}

func (c *Config) start() (*daemon.Process, error) {
	cmd := exec.Command(filepath.Join(c.Binaries, "containerd"), "--config", c.configFile())
	cmd.Env = append(os.Environ(), "PATH="+c.Binaries+":"+os.Getenv("PATH"))
	cmd.Dir = "/"
	p, err := daemon.Start(c.pidFile(), c.LogFile(), cmd)
	if err != nil {
		return nil, fmt.Errorf("containerd does not start: %w", err)
	}
	c.Log.Info("containerd started", "pid", p.PID, "socket", c.Socket())
	return p, nil
}

// answers waits until the socket does, or the process has ended.
func (c *Config) answers(ctx context.Context, p *daemon.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := Dial(c.Endpoint())
	if err != nil {
		return err
	}
	defer conn.Close()
	ended := make(chan error, 1)
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- p.Wait(waiting) }()
	conn.Connect()
	for {
		state := conn.GetState()
		if state == connectivity.Ready {
			return initialized(ctx, cri.NewRuntimeServiceClient(conn))
		}
		changed := make(chan struct{})
		go func() { conn.WaitForStateChange(waiting, state); close(changed) }()
		select {
		case <-changed:
			conn.Connect()
		case err := <-ended:
			if err == nil {
				err = errors.New("it ended")
			}
			return fmt.Errorf("containerd does not answer: %w; see %s%s", err, c.LogFile(), lastLine(c.LogFile()))
		}
	}
}

// initialized waits until containerd's CRI service has read what there is: it
// answers Unavailable until then.
func initialized(ctx context.Context, rt cri.RuntimeServiceClient) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
		if status.Code(err) != codes.Unavailable {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func lastLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return ", which ends: " + string(lines[len(lines)-1])
}

// Run keeps containerd running until ctx ends, and leaves it running then.
func (c *Config) Run(ctx context.Context, p *daemon.Process) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		started := time.Now()
		err := p.Wait(ctx)
		p.Close()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		c.Log.Error("containerd ended and is started again", "log", c.LogFile())
		if time.Since(started) > time.Minute {
			wait = time.Second
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		if p, err = c.start(); err != nil {
			return err
		}
	}
}

// Dial a CRI endpoint, lazily.
func Dial(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		grpc.WithConnectParams(quick()))
}
