// Package nftwatch notices when somebody else removes a table, as a restart of
// a firewall does ("flush ruleset").
package nftwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	groupTables   = 7 // NFNLGRP_NFTABLES
	deletedTable  = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
	attributeName = unix.NFTA_TABLE_NAME
)

// Deleted sends, until ctx ends, when a table of this name may have been
// removed in the network namespace it is called in: look whether it is there.
// A message stands for all deletions since the one before.
func Deleted(ctx context.Context, table string) (<-chan struct{}, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, groupTables)
	if err != nil {
		return nil, fmt.Errorf("changes of nftables cannot be watched: %w", err)
	}
	context.AfterFunc(ctx, socket.Close)
	out := make(chan struct{}, 1)
	go func() {
		defer socket.Close()
		for ctx.Err() == nil {
			messages, _, err := socket.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				return
			}
			// More was said than we could take: perhaps this, too.
			if errors.Is(err, unix.ENOBUFS) || names(messages, table) {
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}
	}()
	return out, nil
}

func names(messages []syscall.NetlinkMessage, table string) bool {
	for _, m := range messages {
		if m.Header.Type != deletedTable || len(m.Data) < nl.SizeofNfgenmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m.Data[nl.SizeofNfgenmsg:])
		if err != nil {
			return true
		}
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED == attributeName && string(bytes.TrimRight(a.Value, "\x00")) == table {
				return true
			}
		}
	}
	return false
}
