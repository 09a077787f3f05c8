// Package state tests what a cluster keeps: that nothing acknowledged is lost
// when the server is killed, that watches go on, that an etcd can come and go,
// that a full disk is survived, and that Proa and upstream's programs read what the
// other has written.
//
// The server is this test's own binary, started as a process. Tests that compare
// with upstream need its programs (kube-apiserver, kube-controller-manager, etcd)
// in the folder that PROA_UPSTREAM_BIN names, and are skipped without.
package state
