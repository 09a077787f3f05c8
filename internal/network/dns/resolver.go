package dns

import (
	"context"
	"net"
	"net/netip"
)

// Resolver lets this process ask the server at an address, as pods do: it knows the
// cluster's names.
func Resolver(server netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.String())
	}}
}
