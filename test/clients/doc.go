// Package clients runs programs that were written for Kubernetes against Proa,
// unchanged: what client-go and controller-runtime consist of, helm, and
// cert-manager's controller. Each test starts a server of its own; see the proa
// package. What needs pods to run plays a kubelet (node_test.go).
package clients
