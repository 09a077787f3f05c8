package clients

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/proa-dev/proa/test/clients/proa"
)

// TestLeaderElection has two candidates. The first is cut off: the second leads when
// the lease is over, and the first has stopped by then. Then the second gives up of
// its own will: the first leads again at once.
func TestLeaderElection(t *testing.T) {
	s := proa.Start(t)
	api := clientFor(t, s.Config())
	board := &leaders{}
	var first, second wire
	stopA := candidate(t, first.config(s.Config()), "a", board)
	board.wait(t, "a")
	stopB := candidate(t, second.config(s.Config()), "b", board)
	defer stopA()

	first.set(true)
	board.wait(t, "b")
	lease := must(api.CoordinationV1().Leases("default").Get(t.Context(), "lead", metav1.GetOptions{}))(t)
	if *lease.Spec.HolderIdentity != "b" || *lease.Spec.LeaseTransitions != 1 {
		t.Errorf("the lease: %s after %d transitions", *lease.Spec.HolderIdentity, *lease.Spec.LeaseTransitions)
	}

	first.set(false)
	s.Kill() // a restart is no reason to lose a lead
	s.Up()
	renewed(t, api.CoordinationV1().Leases("default").Get, lease)
	board.wait(t, "b")
	stopB()
	board.wait(t, "a")
	if board.wrong != "" {
		t.Error(board.wrong)
	}
}

type getLease func(context.Context, string, metav1.GetOptions) (*coordinationv1.Lease, error)

func renewed(t *testing.T, get getLease, before *coordinationv1.Lease) {
	t.Helper()
	proa.Eventually(t, "the lease is renewed", func(ctx context.Context) error {
		now, err := get(ctx, "lead", metav1.GetOptions{})
		if err == nil && !now.Spec.RenewTime.After(before.Spec.RenewTime.Time) {
			err = fmt.Errorf("it was renewed at %s", now.Spec.RenewTime)
		}
		return err
	})
}

// candidate runs until it is stopped; who was cut off tries again.
func candidate(t *testing.T, conf *rest.Config, name string, board *leaders) (stop func()) {
	t.Helper()
	lock := must(resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, "default", "lead",
		resourcelock.ResourceLockConfig{Identity: name}, conf, 2*time.Second))(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: lock, Name: name, ReleaseOnCancel: true,
				LeaseDuration: 4 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: 200 * time.Millisecond,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(context.Context) { board.begin(name) },
					OnStoppedLeading: func() { board.end(name) },
				},
			})
		}
	})
	return func() { cancel(); wg.Wait() }
}

// leaders writes down who leads.
type leaders struct {
	mu    sync.Mutex
	now   string
	wrong string
}

func (l *leaders) begin(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != "" {
		l.wrong = fmt.Sprintf("%s began to lead while %s did", name, l.now)
	}
	l.now = name
}

func (l *leaders) end(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == name {
		l.now = ""
	}
}

func (l *leaders) wait(t *testing.T, name string) {
	t.Helper()
	proa.Eventually(t, name+" leads", func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.now != name {
			return fmt.Errorf("%q does", l.now)
		}
		return nil
	})
}
