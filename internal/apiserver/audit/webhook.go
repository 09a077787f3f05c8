package audit

import (
	"context"

	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
)

// hook posts events to a webhook.
type hook struct{ client *callout.Client }

// send an EventList.
func (h *hook) send(ctx context.Context, all []entry) error {
	size := 0
	for _, e := range all {
		size += len(e.json) + 1
	}
	body := make([]byte, 0, size+80)
	body = append(body, `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[`...)
	for n, e := range all {
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, e.json...)
	}
	_, err := h.client.Post(ctx, append(body, "]}"...), nil)
	return err
}
