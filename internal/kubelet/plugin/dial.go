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

// Listen on a socket at a path, however long it is.
func Listen(path string) (l net.Listener, err error) {
	err = near(path, func(path string) error {
		l, err = net.Listen("unix", path)
		return err
	})
	return l, err
}

func connect(ctx context.Context, path string) (c net.Conn, err error) {
	err = near(path, func(path string) error {
		var d net.Dialer
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// near calls f with a path that fits into a socket's address and means the same.
func near(path string, f func(path string) error) error {
	if len(path) <= longest {
		return f(path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	defer unix.Close(dir)
	return f("/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path))
}
