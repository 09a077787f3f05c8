package containerd

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// quick retries: the other side is a socket on this machine, which is there a
// moment after containerd was started.
func quick() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, Jitter: 0.1, MaxDelay: time.Second},
		MinConnectTimeout: time.Second,
	}
}
