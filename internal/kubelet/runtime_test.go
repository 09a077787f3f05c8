package kubelet

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// engine is a container runtime that only pretends.
type engine struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer

	mu         sync.Mutex
	n          int
	sandboxes  map[string]*cri.PodSandboxStatus
	containers map[string]*cri.ContainerStatus
	in         map[string]string // container → sandbox
	events     []chan *cri.ContainerEventResponse
	calls      map[string]int
	made       map[string]*cri.ContainerConfig // the last one of each pod
}

// newEngine listens on a socket of its own.
func newEngine(t *testing.T) (e *engine, endpoint string) {
	e = &engine{sandboxes: map[string]*cri.PodSandboxStatus{}, containers: map[string]*cri.ContainerStatus{}, in: map[string]string{}, calls: map[string]int{}, made: map[string]*cri.ContainerConfig{}}
	path := filepath.Join(t.TempDir(), "cri.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.calls[filepath.Base(info.FullMethod)]++
		return h(ctx, req)
	}))
	cri.RegisterRuntimeServiceServer(s, e)
	cri.RegisterImageServiceServer(s, e)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return e, "unix://" + path
}

func (e *engine) id(kind string) string { e.n++; return fmt.Sprintf("%s%d", kind, e.n) }

func (e *engine) tell(sandbox string) {
	for _, ch := range e.events {
		ch <- &cri.ContainerEventResponse{PodSandboxStatus: e.sandboxes[sandbox]}
	}
}

func (e *engine) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "engine", RuntimeVersion: "1"}, nil
}

func (e *engine) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	return &cri.StatusResponse{Status: &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}}}, nil
}

func (e *engine) RunPodSandbox(_ context.Context, r *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	id := e.id("sandbox")
	e.sandboxes[id] = &cri.PodSandboxStatus{Id: id, Metadata: r.Config.Metadata, Labels: r.Config.Labels, CreatedAt: time.Now().UnixNano(), Network: &cri.PodSandboxNetworkStatus{Ip: "10.0.0.1"}}
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (e *engine) StopPodSandbox(_ context.Context, r *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	if s := e.sandboxes[r.PodSandboxId]; s != nil {
		s.State = cri.PodSandboxState_SANDBOX_NOTREADY
	}
	return &cri.StopPodSandboxResponse{}, nil
}

func (e *engine) RemovePodSandbox(_ context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	delete(e.sandboxes, r.PodSandboxId)
	return &cri.RemovePodSandboxResponse{}, nil
}

func (e *engine) PodSandboxStatus(_ context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	if s := e.sandboxes[r.PodSandboxId]; s != nil {
		return &cri.PodSandboxStatusResponse{Status: s}, nil
	}
	return nil, status.Error(codes.NotFound, "no such sandbox")
}

func matches(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (e *engine) ListPodSandbox(_ context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	res := &cri.ListPodSandboxResponse{}
	for _, s := range e.sandboxes {
		if matches(s.Labels, r.GetFilter().GetLabelSelector()) {
			res.Items = append(res.Items, &cri.PodSandbox{Id: s.Id, Metadata: s.Metadata, State: s.State, Labels: s.Labels, CreatedAt: s.CreatedAt})
		}
	}
	return res, nil
}

func (e *engine) CreateContainer(_ context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	id := e.id("container")
	e.containers[id] = &cri.ContainerStatus{Id: id, Metadata: r.Config.Metadata, Labels: r.Config.Labels, Annotations: r.Config.Annotations, Image: r.Config.Image, CreatedAt: time.Now().UnixNano()}
	e.in[id] = r.PodSandboxId
	e.made[e.sandboxes[r.PodSandboxId].Metadata.Name] = r.Config
	return &cri.CreateContainerResponse{ContainerId: id}, nil
}

func (e *engine) StartContainer(_ context.Context, r *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	c := e.containers[r.ContainerId]
	c.State, c.StartedAt = cri.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	e.tell(e.in[c.Id])
	return &cri.StartContainerResponse{}, nil
}

func (e *engine) StopContainer(_ context.Context, r *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	e.exit(r.ContainerId, 143)
	return &cri.StopContainerResponse{}, nil
}

// exit ends a container; the engine is locked.
func (e *engine) exit(id string, code int32) {
	c := e.containers[id]
	if c == nil || c.State != cri.ContainerState_CONTAINER_RUNNING {
		return
	}
	next := &cri.ContainerStatus{Id: c.Id, Metadata: c.Metadata, Labels: c.Labels, Annotations: c.Annotations, Image: c.Image, CreatedAt: c.CreatedAt,
		StartedAt: c.StartedAt, State: cri.ContainerState_CONTAINER_EXITED, ExitCode: code, FinishedAt: time.Now().UnixNano()}
	e.containers[id] = next
	e.tell(e.in[id])
}

func (e *engine) RemoveContainer(_ context.Context, r *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	delete(e.containers, r.ContainerId)
	return &cri.RemoveContainerResponse{}, nil
}

func (e *engine) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	if c := e.containers[r.ContainerId]; c != nil {
		return &cri.ContainerStatusResponse{Status: c}, nil
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func (e *engine) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	res := &cri.ListContainersResponse{}
	for _, c := range e.containers {
		if matches(c.Labels, r.GetFilter().GetLabelSelector()) {
			res.Containers = append(res.Containers, &cri.Container{Id: c.Id, PodSandboxId: e.in[c.Id], Metadata: c.Metadata, State: c.State, Labels: c.Labels})
		}
	}
	return res, nil
}

func (e *engine) GetContainerEvents(_ *cri.GetEventsRequest, s grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	ch := make(chan *cri.ContainerEventResponse, 1000)
	e.mu.Lock()
	e.events = append(e.events, ch)
	e.mu.Unlock()
	for {
		select {
		case <-s.Context().Done():
			return nil
		case ev := <-ch:
			if err := s.Send(ev); err != nil {
				return err
			}
		}
	}
}

func (e *engine) ImageStatus(_ context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	if r.Image.Image == "missing:1" {
		return &cri.ImageStatusResponse{}, nil
	}
	return &cri.ImageStatusResponse{Image: &cri.Image{Id: "sha256:" + r.Image.Image}}, nil
}

func (e *engine) PullImage(context.Context, *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	return nil, status.Error(codes.NotFound, "no such image")
}

func (e *engine) ListImages(context.Context, *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	return &cri.ListImagesResponse{}, nil
}

func (e *engine) ImageFsInfo(context.Context, *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	return &cri.ImageFsInfoResponse{}, nil
}
