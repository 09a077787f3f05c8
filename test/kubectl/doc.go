// Package kubectl holds sessions of a stock kubectl with Proa: what is typed
// and what is answered, word for word, in testdata/*.txtar. The words are
// upstream's: UPDATE=1 together with UPSTREAM_KUBECONFIG=FILE writes them anew
// from the answers of an upstream cluster; UPDATE=1 alone from Proa's.
package kubectl
