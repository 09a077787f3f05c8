package usage

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/apiserver/stream"
)

// mostText of one node that is read: 100,000 containers.
const mostText = 64 << 20

// scrape a kubelet.
func scrape(ctx context.Context, via http.RoundTripper, n *corev1.Node) (*shot, error) {
	at := stream.KubeletAddress(n, 0)
	if at == "" {
		return nil, fmt.Errorf("its status has no address")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at+"/metrics/resource", nil)
	if err != nil {
		return nil, err
	}
	answer, err := via.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostText))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: %.200s", r.URL, answer.Status, text)
	}
	return parse(text, time.Now())
}
