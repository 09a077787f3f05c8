package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// socket of one plugin.
type socket struct {
	w      *Watcher
	path   string
	file   fs.FileInfo
	gone   chan struct{}   // closed when it is
	done   chan struct{}   // closed when nothing is done about it any more
	before <-chan struct{} // done of the one that was at the path before, nil = none
}

const (
	firstRetry = 200 * time.Millisecond
	lastRetry  = 2 * time.Minute
	callTime   = 5 * time.Second
)

// run registers the plugin, and deregisters it when its socket is gone.
func (s *socket) run(ctx context.Context) {
	defer close(s.done)
	if s.before != nil {
		<-s.before
	}
	try, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.gone:
			cancel()
		case <-try.Done():
		}
	}()
	var info Info
	var handler Handler
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		var err error
		if info, handler, err = s.register(try); err == nil {
			break
		}
		if try.Err() != nil {
			return
		}
		s.w.Log.Warn("plugin not registered", "socket", s.path, "err", err)
		select {
		case <-try.Done():
			return
		case <-time.After(wait):
		}
	}
	s.w.Log.Info("plugin registered", "type", info.Type, "name", info.Name, "endpoint", info.Endpoint)
	select {
	case <-ctx.Done():
	case <-s.gone:
		handler.Deregister(info)
		s.w.Log.Info("plugin gone", "type", info.Type, "name", info.Name)
	}
}

func (s *socket) isGone() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

func (s *socket) register(ctx context.Context) (Info, Handler, error) {
	conn, err := Dial(s.path, grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 2, MaxDelay: time.Second}, MinConnectTimeout: time.Second}))
	if err != nil {
		return Info{}, nil, err
	}
	defer conn.Close()
	c := registration.NewRegistrationClient(conn)
	first, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	said, err := c.GetInfo(first, &registration.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return Info{}, nil, fmt.Errorf("GetInfo: %w", err)
	}
	info := Info{Type: said.Type, Name: said.Name, Said: said.Endpoint, Versions: said.SupportedVersions}
	if info.Said == "" {
		info.Said = s.path
	}
	info.Endpoint = s.w.Root.Real(info.Said)
	handler := s.w.Handlers[info.Type]
	if handler == nil {
		err = fmt.Errorf("RegisterPlugin error -- no handler registered for plugin type: %s at socket %s", info.Type, s.path)
	} else if err = handler.Validate(info); err != nil {
		err = fmt.Errorf("RegisterPlugin error -- plugin validation failed with err: %w", err)
	} else if err = handler.Register(ctx, info); err != nil {
		err = fmt.Errorf("RegisterPlugin error -- plugin registration failed with err: %w", err)
	}
	status := &registration.RegistrationStatus{PluginRegistered: err == nil}
	if err != nil {
		status.Error = err.Error()
	}
	last, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, told := c.NotifyRegistrationStatus(last, status); told != nil {
		if err == nil && (ctx.Err() == nil || s.isGone()) { // else it is the kubelet that ends
			handler.Deregister(info)
		}
		err = errors.Join(err, fmt.Errorf("NotifyRegistrationStatus: %w", told))
	}
	return info, handler, err
}
