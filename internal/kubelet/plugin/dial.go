package plugin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// longest path that fits into a socket's address.
const longest = 107

// Dial makes a connection to the socket at a path. It connects when it is first
// used, and again when it has broken; an idle one costs nothing.
func Dial(path string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+path, append([]grpc.DialOption{
		grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return connect(ctx, path) }),
	}, opts...)...)
}

func connect(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= longest {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(dir)+"/"+filepath.Base(path))
}
