package runtime

import (
	"cmp"
	"context"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-dev/proa/internal/kubelet/logs"
)

// Pod is what the runtime has of one pod: sandboxes and containers, newest first.
type Pod struct {
	Ref
	Runtime    string // its name, with which container IDs begin
	Sandboxes  []Sandbox
	Containers []Container
}

// Sandbox of a pod.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	Created time.Time
	IPs     []string
	Host    bool // shares the node's network
}

// State of a container.
type State int

// The states.
const (
	Unknown State = iota
	Created
	Running
	Exited
)

// Container of a pod, one attempt at running it.
type Container struct {
	ID, Name, Sandbox          string
	State                      State
	Attempt                    int // restart count
	Created, Started, Finished time.Time
	ExitCode                   int32
	Reason, Message            string
	Image, ImageID             string // what the pod asked for, what is used
	Hash                       string
	LogPath                    string
	MessagePath                string // on the host, "" = none
	FallbackToLogs             bool
	Resources                  *cri.LinuxContainerResources
	User                       *cri.LinuxContainerUser
	StopSignal                 cri.Signal
}

// Ready sandbox of the pod, the newest; nil if there is none.
func (p *Pod) Ready() *Sandbox {
	if p != nil && len(p.Sandboxes) > 0 && p.Sandboxes[0].Ready {
		return &p.Sandboxes[0]
	}
	return nil
}

// Latest attempt at running a container, nil if there is none.
func (p *Pod) Latest(name string) *Container {
	if p == nil {
		return nil
	}
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// Observer reads pods out of the runtime. What cannot change any more, exited
// containers, is asked for once.
type Observer struct {
	c      *Client
	mu     sync.Mutex
	exited map[string]Container
}

// NewObserver of a runtime.
func NewObserver(c *Client) *Observer { return &Observer{c: c, exited: map[string]Container{}} }

// Forget exited containers that are no longer there.
func (o *Observer) Forget(ids ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		delete(o.exited, id)
	}
}

// Pod reads one pod.
func (o *Observer) Pod(ctx context.Context, uid types.UID) (*Pod, error) {
	p := &Pod{Ref: Ref{UID: uid}, Runtime: o.c.name}
	sel := map[string]string{PodUIDLabel: string(uid)}
	var sandboxes *cri.ListPodSandboxResponse
	var containers *cri.ListContainersResponse
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		sandboxes, err = o.c.ListPodSandbox(gctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: sel}})
		return err
	})
	g.Go(func() (err error) {
		containers, err = o.c.ListContainers(gctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{LabelSelector: sel}})
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, s := range sandboxes.Items {
		p.Namespace, p.Name = s.Labels[PodNamespaceLabel], s.Labels[PodNameLabel]
		p.Sandboxes = append(p.Sandboxes, Sandbox{
			ID: s.Id, Attempt: s.Metadata.GetAttempt(), Created: time.Unix(0, s.CreatedAt),
			Ready: s.State == cri.PodSandboxState_SANDBOX_READY,
		})
	}
	slices.SortFunc(p.Sandboxes, func(a, b Sandbox) int { return b.Created.Compare(a.Created) })
	if len(p.Sandboxes) > 0 {
		if err := o.network(ctx, &p.Sandboxes[0]); err != nil {
			return nil, err
		}
	}
	for _, item := range containers.Containers {
		p.Namespace, p.Name = item.Labels[PodNamespaceLabel], item.Labels[PodNameLabel]
		c, err := o.container(ctx, item)
		if NotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p.Containers = append(p.Containers, c)
	}
	slices.SortFunc(p.Containers, func(a, b Container) int {
		return cmp.Or(b.Created.Compare(a.Created), b.Attempt-a.Attempt)
	})
	return p, nil
}

func (o *Observer) network(ctx context.Context, s *Sandbox) error {
	r, err := o.c.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: s.ID})
	if NotFound(err) {
		s.Ready = false
		return nil
	}
	if err != nil {
		return err
	}
	s.Ready = r.Status.State == cri.PodSandboxState_SANDBOX_READY
	s.Host = r.Status.GetLinux().GetNamespaces().GetOptions().GetNetwork() == cri.NamespaceMode_NODE
	if ip := r.Status.GetNetwork().GetIp(); ip != "" && s.Ready {
		s.IPs = append(s.IPs, ip)
		for _, more := range r.Status.Network.AdditionalIps {
			s.IPs = append(s.IPs, more.Ip)
		}
	}
	return nil
}

func (o *Observer) container(ctx context.Context, item *cri.Container) (Container, error) {
	o.mu.Lock()
	c, ok := o.exited[item.Id]
	o.mu.Unlock()
	if ok {
		return c, nil
	}
	r, err := o.c.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: item.Id})
	if err != nil {
		return c, err
	}
	c = convert(r.Status)
	c.Sandbox = item.PodSandboxId
	if c.State == Exited {
		c.Message = message(&c)
		o.mu.Lock()
		o.exited[c.ID] = c
		o.mu.Unlock()
	}
	return c, nil
}

func convert(s *cri.ContainerStatus) Container {
	c := Container{
		ID: s.Id, Name: s.Metadata.GetName(),
		ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
		Image: s.Image.GetImage(), ImageID: s.ImageRef,
		Hash: s.Annotations[HashAnnotation], LogPath: s.LogPath,
		FallbackToLogs: s.Annotations[MessagePolicyAnnotation] == "FallbackToLogsOnError",
		Resources:      s.GetResources().GetLinux(),
		User:           s.GetUser().GetLinux(),
		Created:        nanos(s.CreatedAt), Started: nanos(s.StartedAt), Finished: nanos(s.FinishedAt),
		StopSignal: s.StopSignal,
	}
	if name := s.Labels[ContainerNameLabel]; name != "" {
		c.Name = name
	}
	if s.Image.GetUserSpecifiedImage() != "" {
		c.Image = s.Image.UserSpecifiedImage
	}
	c.Attempt, _ = strconv.Atoi(s.Annotations[RestartCountAnnotation])
	switch s.State {
	case cri.ContainerState_CONTAINER_CREATED:
		c.State = Created
	case cri.ContainerState_CONTAINER_RUNNING:
		c.State = Running
	case cri.ContainerState_CONTAINER_EXITED:
		c.State = Exited
	}
	if path := s.Annotations[MessagePathAnnotation]; path != "" {
		for _, m := range s.Mounts {
			if m.ContainerPath == path {
				c.MessagePath = m.HostPath
			}
		}
	}
	return c
}

// message of a container that has ended: what the runtime says and what the
// container wrote to its termination message file or, if it failed and asks for
// that, the end of its log.
func message(c *Container) string {
	text := ""
	if c.MessagePath != "" {
		if f, err := os.Open(c.MessagePath); err == nil {
			b, _ := io.ReadAll(io.LimitReader(f, maxTermination))
			_ = f.Close()
			text = string(b)
		}
	}
	if text == "" && c.FallbackToLogs && c.ExitCode != 0 {
		text = logs.Last(c.LogPath)
	}
	if text != "" && c.Message != "" {
		return c.Message + ": " + text
	}
	return c.Message + text
}

const maxTermination = 4096

func nanos(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
