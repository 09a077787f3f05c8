package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Puller keeps a node's runtime supplied with every image that was imported
// into the cluster, so that they are there for pull policies that never ask.
type Puller struct {
	Server string // https://HOST:PORT
	Node   string
	HTTP   *http.Client // with the node's credentials
	Images cri.ImageServiceClient
	Log    *slog.Logger

	pulled map[string]string // name → digest
}

// Paths of the server's side.
const (
	FollowPath = "/proa/v1/images/follow"
	HasPath    = "/proa/v1/images/has"
	ImagesPath = "/proa/v1/images"
)

// Run follows the server's images until ctx ends.
func (p *Puller) Run(ctx context.Context) error {
	p.pulled = map[string]string{}
	for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, 30*time.Second) {
		started := time.Now()
		err := p.follow(ctx)
		if time.Since(started) > time.Minute {
			wait = time.Second
		}
		if ctx.Err() == nil && err != nil {
			p.Log.Debug("the server's images cannot be followed", "err", err, "again", wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return nil
}

func (p *Puller) follow(ctx context.Context) error {
	body, err := p.call(ctx, http.MethodGet, FollowPath)
	if err != nil {
		return err
	}
	defer body.Close()
	for lines := json.NewDecoder(body); ; {
		var s State
		if err := lines.Decode(&s); err != nil {
			return err
		}
		p.pull(ctx, s.Images)
		done, err := p.call(ctx, http.MethodPost, fmt.Sprintf("%s?version=%d", HasPath, s.Version))
		if err != nil {
			return err
		}
		done.Close()
	}
}

func (p *Puller) pull(ctx context.Context, images []Image) {
	for _, i := range images {
		if p.pulled[i.Name] == i.Digest {
			continue
		}
		started := time.Now()
		_, err := p.Images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: i.Name}})
		if err != nil {
			p.Log.Error("an imported image cannot be pulled", "image", i.Name, "err", err)
			continue
		}
		p.pulled[i.Name] = i.Digest
		p.Log.Info("imported image pulled", "image", i.Name, "took", time.Since(started).Round(time.Millisecond))
	}
}

func (p *Puller) call(ctx context.Context, method, path string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, p.Server+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp.Body, nil
}
