package kubelet

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/kubelet/pod"
)

// newer says whether a is a later state of the object than b.
func newer(a, b *v1.Pod) bool { return later(a.ResourceVersion, b.ResourceVersion) }

// later of two resource versions; those that are no numbers always are.
func later(a, b string) bool {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	return err1 != nil || err2 != nil || x > y
}

// overlay puts what the kubelet last said over what the API has, which may be
// older; what is not the kubelet's stays the API's.
func overlay(api, wrote *v1.PodStatus) v1.PodStatus {
	s := *wrote.DeepCopy()
	s.NominatedNodeName, s.ResourceClaimStatuses = api.NominatedNodeName, api.ResourceClaimStatuses
	if pod.Final(api.Phase) {
		s.Phase = api.Phase
	}
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c v1.PodCondition) bool { return !pod.Owned(c.Type) })
	for _, c := range api.Conditions {
		if !pod.Owned(c.Type) {
			s.Conditions = append(s.Conditions, c)
		}
	}
	return s
}

// save writes the status if it is not what the API has. true says that it is.
func (w *worker) save(ctx context.Context, want *v1.PodStatus) bool {
	w.wrote = want
	shown := *w.api
	shown.Status = *want
	w.latest.Store(&shown)
	if w.static {
		if !w.gone {
			w.mirror(ctx, want)
		}
		return true
	}
	if pod.Same(want, &w.api.Status) {
		w.retry = time.Time{}
		return true
	}
	if w.gone || w.saving || w.st.Now.Before(w.retry) {
		return w.gone
	}
	patch, err := diff(w.api, want)
	if err != nil {
		w.log.Error("status patch", "err", err)
		return false
	}
	w.saving = true
	k, ns, name, uid := w.k, w.ref.Namespace, w.ref.Name, w.ref.UID
	go func() {
		got, err := k.pods.Patch(ctx, ns, name, client.Patch{Type: types.StrategicMergePatchType, Data: patch}, client.WriteOptions{Subresource: "status"})
		lost := err != nil && ctx.Err() == nil && k.replaced(ctx, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: uid}})
		w.tell(func(w *worker) {
			w.saving, w.retry = false, time.Time{}
			switch {
			case err == nil && got.UID != uid:
				w.gone = true // another pod has taken the name
			case err == nil:
				if newer(got, w.api) {
					w.api = got
				}
			case lost:
				w.gone = true
			case ctx.Err() == nil:
				w.log.Warn("status not written", "err", err)
				w.retry = time.Now().Add(time.Second)
			}
		})
	}()
	return false
}

func diff(old *v1.Pod, want *v1.PodStatus) ([]byte, error) {
	a, err := json.Marshal(v1.Pod{Status: old.Status})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v1.Pod{Status: *want})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(a, b, v1.Pod{})
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		return nil, err
	}
	m["metadata"] = map[string]any{"uid": old.UID}
	return json.Marshal(m)
}
