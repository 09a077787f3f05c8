package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/cluster/registry"
)

// Images of a running cluster, as its owner handles them.
type Images struct {
	server string
	http   *http.Client
}

// NewImages of the cluster that a kubeconfig and context name; "" = as kubectl
// chooses them.
func NewImages(kubeconfig, context string) (*Images, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: is there a cluster? (proa up makes one; --kubeconfig and --context name another)", err)
	}
	c, err := rest.HTTPClientFor(config)
	return &Images{strings.TrimSuffix(config.Host, "/"), c}, err
}

// Import an archive. It returns when every node has the images. as is their
// name; "" = as the archive says.
func (i *Images) Import(ctx context.Context, archive io.Reader, as string) (got []registry.Image, err error) {
	err = i.call(ctx, http.MethodPost, as, archive, &got)
	return got, err
}

// List the images.
func (i *Images) List(ctx context.Context) ([]registry.Image, error) {
	var s registry.State
	err := i.call(ctx, http.MethodGet, "", nil, &s)
	return s.Images, err
}

// Remove an image by its name.
func (i *Images) Remove(ctx context.Context, name string) error {
	return i.call(ctx, http.MethodDelete, name, nil, nil)
}

func (i *Images) call(ctx context.Context, method, name string, body io.Reader, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, i.server+registry.ImagesPath+"?name="+url.QueryEscape(name), body)
	if err != nil {
		return err
	}
	resp, err := i.http.Do(r)
	if err != nil {
		return fmt.Errorf("the cluster does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Errorf("%s", strings.TrimSpace(string(text)))
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
