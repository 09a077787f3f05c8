package resourceclaim

import (
	"slices"
	"sync"
)

// uses is which pods are to be looked at when a claim or a template changes. Pods
// without claims are not in it.
type uses struct {
	mu   sync.Mutex
	pods map[string]map[string]bool // by key of the claim or template: keys of pods
	keys map[string][]string        // by key of the pod
}

func newUses() *uses {
	return &uses{pods: map[string]map[string]bool{}, keys: map[string][]string{}}
}

// set what a pod uses, nothing = forget it.
func (u *uses) set(pod string, keys []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	before := u.keys[pod]
	if slices.Equal(before, keys) {
		return
	}
	for _, k := range before {
		if delete(u.pods[k], pod); len(u.pods[k]) == 0 {
			delete(u.pods, k)
		}
	}
	if len(keys) == 0 {
		delete(u.keys, pod)
		return
	}
	u.keys[pod] = keys
	for _, k := range keys {
		if u.pods[k] == nil {
			u.pods[k] = map[string]bool{}
		}
		u.pods[k][pod] = true
	}
}

// of a claim or template: the keys of pods.
func (u *uses) of(key string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make([]string, 0, len(u.pods[key]))
	for pod := range u.pods[key] {
		all = append(all, pod)
	}
	return all
}
