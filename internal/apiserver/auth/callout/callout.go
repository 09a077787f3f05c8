// Package callout posts JSON to a service that a kubeconfig file names, as the
// API server asks webhooks about tokens and permissions and tells them what it
// has audited: the cluster of the current context is the service, its user is
// what the API server shows. The URL is taken as it is, with its path.
package callout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/apiserver/auth/metrics"
)

// Timeout of one call, if nobody says another.
const Timeout = 30 * time.Second

// Client of one service.
type Client struct {
	rest    *rest.RESTClient
	backoff wait.Backoff
	again   func(error) bool
}

// Asked is told of each try: what was answered (0 = nothing), what is wrong with it,
// and how long it took.
type Asked func(ctx context.Context, code int, err error, took time.Duration)

// Options of a client; zero values are the usual.
type Options struct {
	Timeout time.Duration
	// First is how long to wait before the second try; further waits are half as
	// long again. 0 = half a second. There are five tries.
	First time.Duration
	// Again says which errors are worth another try; nil = those that pass: broken
	// connections, 500, 504, 429, and whatever says Retry-After.
	Again func(error) bool
	// Servers looks at the certificates that are shown; nil = nobody does.
	Servers *metrics.Servers
}

// Open reads a kubeconfig file. Nothing is called yet.
func Open(kubeconfig string, o Options) (*Client, error) {
	file, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}).Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config, err := clientcmd.NewDefaultClientConfig(*file, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w; write a cluster whose server is the service's URL, and a current-context that names it", kubeconfig, err)
	}
	config.Timeout, config.QPS = Timeout, -1 // how many requests there are is limited elsewhere
	if o.Timeout > 0 {
		config.Timeout = o.Timeout
	}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	config.UserAgent = "kube-apiserver"
	config.Wrap(o.Servers.Watch)
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	c := &Client{rest: client, backoff: webhook.DefaultRetryBackoffWithInitialDelay(o.First), again: o.Again}
	if o.First == 0 {
		c.backoff.Duration = 500 * time.Millisecond
	}
	if c.again == nil {
		c.again = webhook.DefaultShouldRetry
	}
	return c, nil
}

// Post a JSON document and return the answer, after as many tries as it takes.
// Errors of the service are StatusErrors. asked may be nil.
func (c *Client) Post(ctx context.Context, body []byte, asked Asked) ([]byte, error) {
	var answer []byte
	err := webhook.WithExponentialBackoff(ctx, c.backoff, func() error {
		var code int
		start := time.Now()
		result := c.rest.Post().SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body).Do(ctx).StatusCode(&code)
		var err error
		answer, err = result.Raw()
		if err == nil && code >= http.StatusMultipleChoices {
			err = fmt.Errorf("the service answered %d", code)
		}
		if asked != nil {
			asked(ctx, code, err, time.Since(start))
		}
		var status *apierrors.StatusError
		if errors.As(err, &status) {
			status.ErrStatus.Message = said(code, answer)
		}
		return err
	}, c.again)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// said is what a service has said of its failure. What is no Status is left out:
// it may hold what the service was sent.
func said(code int, answer []byte) string {
	var status metav1.Status
	if json.Unmarshal(answer, &status) == nil && status.Message != "" {
		return fmt.Sprintf("the service answered %d: %s", code, status.Message)
	}
	return fmt.Sprintf("the service answered %d (%s)", code, http.StatusText(code))
}

// Always is for calls that are worth another try whatever went wrong.
func Always(err error) bool { return err != nil && !errors.Is(err, context.Canceled) }
