package runtime

import (
	"context"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Features of the runtime's default handler.
type Features struct {
	Name, Version string
	RRO           bool // can mount read-only recursively
	UserNS        bool
	Handlers      []*cri.RuntimeHandler
	Groups        bool // knows supplementalGroupsPolicy
}

// Features asks what the runtime can do.
func (c *Client) Features(ctx context.Context) (*Features, error) {
	v, err := c.Version(ctx, &cri.VersionRequest{})
	if err != nil {
		return nil, err
	}
	s, err := c.RuntimeServiceClient.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return nil, err
	}
	f := &Features{Name: v.RuntimeName, Version: v.RuntimeVersion, Handlers: s.RuntimeHandlers, Groups: s.GetFeatures().GetSupplementalGroupsPolicy()}
	for _, h := range s.RuntimeHandlers {
		if h.Name == "" {
			f.RRO, f.UserNS = h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		}
	}
	return f, nil
}

// Healthy says why the runtime is not ready, "" = it is.
func (c *Client) Healthy(ctx context.Context) (problem string) {
	s, err := c.RuntimeServiceClient.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return "container runtime is down: " + Message(err)
	}
	for _, cond := range s.GetStatus().GetConditions() {
		if !cond.Status && (cond.Type == "RuntimeReady" || cond.Type == "NetworkReady") {
			return "container runtime network not ready: " + cond.Type + "=false reason:" + cond.Reason + " message:" + cond.Message
		}
	}
	return ""
}

// AwaitNetwork returns when the runtime has a pod network, or after patience: just
// started, it reads the network's configuration a moment after the node has it, and
// a pod that fails in that moment is only tried again seconds later.
func (c *Client) AwaitNetwork(ctx context.Context, patience time.Duration) {
	if c.networked.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s, err := c.RuntimeServiceClient.Status(ctx, &cri.StatusRequest{})
		missing := func(cond *cri.RuntimeCondition) bool { return cond.Type == "NetworkReady" && !cond.Status }
		if err != nil || !slices.ContainsFunc(s.GetStatus().GetConditions(), missing) {
			c.networked.Store(err == nil)
			return // or the sandbox itself says what is wrong
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(networkLook):
		}
	}
}

// networkLook is how often the runtime is asked for its network: it tells nobody.
const networkLook = 50 * time.Millisecond
