// Package scheduler gives pods to nodes.
//
// One goroutine owns the world: what is known of nodes and of the pods on them.
// Events of informers change it in place; counters that affinity and spreading
// need are kept up to date with every pod that comes and goes, so that a
// decision looks at counters and not at pods. A decision (plan.go) is a pure
// function of the world and one pod: it filters nodes, scores what is left and
// picks the best, or says why there is none. The actor (run.go) takes the
// queue's pods one after the other, assumes each decision to be true at once,
// and lets binders make it true; a bind that fails is taken back.
//
// Filters, scores, weights and messages are those of kube-scheduler v1.36's
// default profile.
package scheduler
