// Package runtime is the kubelet's side of the Container Runtime Interface: one
// connection, typed results, and the stream of container events. What it returns
// describes what the runtime has; it decides nothing.
package runtime

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels and annotations that tie what the runtime has to pods, as every kubelet
// writes them: crictl, log collectors and a later kubelet read them.
const (
	PodNameLabel       = "io.kubernetes.pod.name"
	PodNamespaceLabel  = "io.kubernetes.pod.namespace"
	PodUIDLabel        = "io.kubernetes.pod.uid"
	ContainerNameLabel = "io.kubernetes.container.name"

	HashAnnotation          = "io.kubernetes.container.hash"
	RestartCountAnnotation  = "io.kubernetes.container.restartCount"
	MessagePathAnnotation   = "io.kubernetes.container.terminationMessagePath"
	MessagePolicyAnnotation = "io.kubernetes.container.terminationMessagePolicy"
	PodGraceAnnotation      = "io.kubernetes.pod.terminationGracePeriod"
	PreStopAnnotation       = "io.kubernetes.container.preStopHandler"
	PortsAnnotation         = "io.kubernetes.container.ports"
)

const maxMessage = 16 << 20

// Client speaks CRI with one runtime. The generated clients are open for the
// calls that need no translation.
type Client struct {
	cri.RuntimeServiceClient
	Images cri.ImageServiceClient

	conn *grpc.ClientConn
	name string

	networked atomic.Bool // a pod network was there
}

// Dial connects to an endpoint such as unix:///run/containerd/containerd.sock and
// waits until the runtime answers or ctx ends.
func Dial(ctx context.Context, endpoint string) (*Client, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "unix://" + endpoint
	}
	conn, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("container runtime endpoint %q: %w", endpoint, err)
	}
	c := &Client{RuntimeServiceClient: cri.NewRuntimeServiceClient(conn), Images: cri.NewImageServiceClient(conn), conn: conn}
	if err := c.await(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("container runtime at %s does not answer: %w", endpoint, err)
	}
	return c, nil
}

// await a runtime that is being started: its socket is there before it is ready.
func (c *Client) await(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := c.RuntimeServiceClient.Version(ctx, &cri.VersionRequest{})
		if err == nil {
			c.name = v.RuntimeName
			_, err = c.ListContainers(ctx, &cri.ListContainersRequest{})
		}
		if status.Code(err) != codes.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Name of the runtime, "containerd"; container IDs in pod statuses begin with it.
func (c *Client) Name() string { return c.name }

// Close the connection.
func (c *Client) Close() error { return c.conn.Close() }

// ID as pod statuses show it: "containerd://0123…".
func (c *Client) ID(id string) string { return c.name + "://" + id }

// NotFound says whether an error of the runtime means that the thing is not there.
func NotFound(err error) bool { return status.Code(err) == codes.NotFound }

// Message of an error without gRPC's framing.
func Message(err error) string {
	s, _ := status.FromError(err)
	return s.Message()
}

// Events calls f for every container event until the stream breaks or ctx ends.
func (c *Client) Events(ctx context.Context, ready func(), f func(*cri.ContainerEventResponse)) error {
	stream, err := c.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return err
	}
	ready()
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		f(e)
	}
}

// Pods lists the UIDs of all pods that have sandboxes or containers.
func (c *Client) Pods(ctx context.Context) (map[types.UID]Ref, error) {
	pods := map[types.UID]Ref{}
	sandboxes, err := c.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := c.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	add := func(l map[string]string) {
		if uid := types.UID(l[PodUIDLabel]); uid != "" {
			pods[uid] = Ref{l[PodNamespaceLabel], l[PodNameLabel], uid}
		}
	}
	for _, s := range sandboxes.Items {
		add(s.Labels)
	}
	for _, s := range containers.Containers {
		add(s.Labels)
	}
	return pods, nil
}

// Ref names a pod.
type Ref struct {
	Namespace, Name string
	UID             types.UID
}

// ExecSync runs a command in a container. code is its exit code; err tells of a
// command that could not be run or took longer than the timeout (IsTimeout).
func (c *Client) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (out []byte, code int, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout+5*time.Second)
		defer cancel()
	}
	r, err := c.RuntimeServiceClient.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: int64((timeout + time.Second - 1) / time.Second)})
	if err != nil {
		return nil, 0, err
	}
	return append(r.Stdout, r.Stderr...), int(r.ExitCode), nil
}

// IsTimeout says whether ExecSync ended because the command took too long.
func IsTimeout(err error) bool { return status.Code(err) == codes.DeadlineExceeded }
