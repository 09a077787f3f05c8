package audit

import (
	"context"

	"github.com/proa-dev/proa/internal/apiserver/auth/callout"
)

// hook posts events to a webhook.
type hook struct{ client *callout.Client }

// put is for the modes in which a request waits for its record.
func (h *hook) put(all ...entry) error { return h.send(context.Background(), all) }

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
	_, err := h.client.Post(ctx, append(body, "]}"...))
	return err
}
