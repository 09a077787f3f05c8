// Package cache is the one copy of the world: every object decoded once,
// immutable, shared by API reads, watches, controllers, scheduler and kubelet.
//
// One store watch on everything feeds it, so there is one order of events over
// all kinds, told by the store's revision. Per kind there is an ordered
// copy-on-write tree (a snapshot costs nothing and never changes), secondary
// indexes as the kind declares them, and a window of recent events from which
// a watch can start in the past.
package cache

import (
	"context"
	"errors"
)

// ErrGone: the revision asked for is older than the window of events.
var ErrGone = errors.New("too old resource version")

// ErrSlow: a watcher was so far behind that its events were given up.
var ErrSlow = errors.New("the watcher fell behind")

// ErrStopped: the watcher or the cache was stopped.
var ErrStopped = errors.New("the watch was stopped")

// EventType says what happened to an object.
type EventType uint8

const (
	Added EventType = iota + 1
	Modified
	Deleted
)

// Event is one change of one object. Of a deletion, Item holds the last state
// with the revision of the deletion as its resourceVersion.
type Event struct {
	Type EventType
	Item *Item
	Prev *Item // before a modification or deletion
}

// Scope narrows a watch, so that changes elsewhere cost it nothing. Zero fields
// do not narrow. At most one of Name and Index is looked at.
type Scope struct {
	Namespace string
	Name      string
	Index     string // one of Kind.Indexes …
	Value     string // … and the value wanted
}

// WatchOptions say where a watch begins.
type WatchOptions struct {
	Scope
	// Label and LabelValue narrow the scope, if it has neither Name nor Index: to
	// objects with that value of a label. "" = they do not.
	Label, LabelValue string
	// After is the revision after which events are wanted. 0 = what is there now
	// comes first as Added events, in key order.
	After int64
	// Unbounded lets any number of events wait: for readers in this process, who
	// cannot be told to come again. Otherwise Config.Queue is the limit.
	Unbounded bool
}

// Reader is what one kind's part of the cache offers. *Set implements it.
type Reader interface {
	// Get returns nil when there is no such object.
	Get(namespace, name string) *Item
	// Snapshot is the state now.
	Snapshot() Snapshot
	// Changed is the revision of the last change of this kind (an atomic read):
	// what was derived from the kind is good for as long as it stays the same.
	Changed() int64
	// Watch starts a watch. ErrGone if opt.After is older than the window.
	// A revision that the cache has not reached yet is good: events after it come.
	Watch(opt WatchOptions) (Watcher, error)
}

// Snapshot is the state of one kind at one revision; immutable.
type Snapshot interface {
	// Revision of the whole store that this state belongs to.
	Revision() int64
	Len() int
	Get(namespace, name string) *Item
	// Ascend visits in key order (namespace, then name) from the key given on,
	// inclusive ("" = all), until visit returns false.
	Ascend(namespace, fromNamespace, fromName string, visit func(*Item) bool)
	// ByIndex visits the items with a value in an index, in key order.
	ByIndex(index, value string, visit func(*Item) bool)
	// Count in a namespace ("" = all) without visiting.
	Count(namespace string) int
}

// Waiter waits for the cache to have seen a revision.
type Waiter interface {
	Wait(ctx context.Context, revision int64) error
	Revision() int64
}

// Watcher is a running watch of one kind in a scope.
type Watcher interface {
	// Next blocks until there are events and returns all that are waiting, in
	// order, and the revision up to which the watcher has seen everything, or
	// ctx's error, ErrSlow, or ErrStopped. When it was not Stop that ended the
	// watch but the kind, what happened before comes first.
	Next(ctx context.Context) ([]Event, int64, error)
	Stop()
}
