package scheduler

import (
	"context"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// askAgain is how long after a claim that no event shows yet was there it is asked for again.
const askAgain = time.Second

// unseen are the claims that were written and that no event has shown yet, by UID.
func (d *devices) unseen() map[types.UID]string {
	all := map[types.UID]string{}
	for uid, p := range d.pending {
		if p.written == "" {
			continue
		}
		if c := d.claims[p.key]; c == nil || c.UID != uid {
			all[uid] = p.key
		}
	}
	return all
}

// askForUnseen finds out which of the claims that no event has shown are gone again.
// An informer does not tell of what came and went between two lists, and its devices
// would stay taken. It is called when a pod finds no device, and now and then.
func (s *Scheduler) askForUnseen(ctx context.Context) {
	unseen := s.world.devices.unseen()
	if s.asking || len(unseen) == 0 || ctx.Err() != nil {
		return
	}
	s.asking = true
	go func() {
		gone := map[types.UID]string{}
		for uid, key := range unseen {
			namespace, name, _ := strings.Cut(key, "/")
			now, err := s.deviceClaims().Get(ctx, namespace, name)
			if apierrors.IsNotFound(err) || err == nil && now.UID != uid {
				gone[uid] = key
			}
		}
		s.inbox.put(func() {
			s.asking = false
			for uid, key := range gone {
				s.world.devices.drop(key, uid)
			}
			if len(gone) < len(unseen) {
				time.AfterFunc(askAgain, func() { s.inbox.put(func() { s.askForUnseen(ctx) }) })
			}
		})
	}()
}
