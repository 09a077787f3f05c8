// Package e2e tests what a user does, on real clusters: proa up, a stock
// kubectl, containerd, network namespaces. Its tests need root, bin/proa
// (PROA_BIN) and the runtime's programs (PROA_RUNTIME_DIR); "make test" sets
// both. Without them they are skipped and say what is missing.
package e2e
