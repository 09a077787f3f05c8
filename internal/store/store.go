// Package store is Proa's memory: revisioned keys and values. Its contract is
// what etcd can do, no more; etcd (embedded or external) and an in-memory store
// for tests implement it, and storetest holds both to it.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store keeps values under keys. Every commit moves one revision, an int64
// that all keys share and that only grows. Keys begin with "/" ("/pods/ns/n");
// an implementation puts its own prefix ("/registry") in front of them.
//
// Methods may be called concurrently. They return ctx's error when it ends
// first; a commit whose context ended may or may not have happened.
type Store interface {
	// Commit makes all the writes in one transaction or none, and returns the
	// revision at which they are visible. Errors: *Conflict when a write's Prior
	// does not hold (nothing was written); ErrTooLarge; ErrFull (only deletions are
	// taken); ErrUnavailable (with its cause wrapped) when the outcome is unknown or
	// the store cannot be reached.
	// A key may be written once only. Deleting with Unsafe what is not there is
	// no error and no change.
	Commit(ctx context.Context, writes ...Write) (int64, error)

	// Revision is the latest committed one, linearizable: a commit that was
	// acknowledged anywhere before the call is not above it.
	Revision(ctx context.Context) (int64, error)

	// Range calls visit for the entries whose key begins with prefix, in key
	// order, starting at key opt.From, as they were at opt.Revision (0 = now).
	// It reads in pages and holds no more than one. It returns the revision that
	// was read. When visit returns false it stops. Errors: ErrCompacted,
	// ErrFuture (a revision that is not there yet).
	Range(ctx context.Context, prefix string, opt RangeOptions, visit func(Entry) bool) (int64, error)

	// Watch delivers every commit after a revision, in order, each commit as one
	// batch, without a gap or a repeat, until ctx ends or the stream cannot go
	// on. The channel is then closed; Err says why. ErrCompacted when the
	// revision is too old.
	Watch(ctx context.Context, after int64) (Stream, error)

	// Compact forgets what was overwritten or deleted before a revision. Entries
	// as they are now stay; reading at that revision and watching after it go on
	// working. Compacting again, or to an older revision, is no error; ErrFuture.
	Compact(ctx context.Context, revision int64) error

	// Size in bytes of what is kept on disk (0 = not known).
	Size(ctx context.Context) (int64, error)

	// Close ends all watches and releases what the store holds.
	Close() error
}

// Write is one change of a transaction.
type Write struct {
	Key    string
	Value  []byte        // nil = delete
	Prior  int64         // the revision that the key's entry must have; 0 = the key must not exist
	TTL    time.Duration // > 0: the entry goes away by itself, at the earliest after this long
	Unsafe bool          // Prior is not looked at
}

// Entry is a key with its value.
type Entry struct {
	Key      string
	Value    []byte // shared; not to be changed
	Created  int64  // revision that made the key
	Revision int64  // revision that wrote this value
}

// RangeOptions narrow a Range.
type RangeOptions struct {
	From     string // first key, "" = the prefix
	Revision int64  // 0 = the latest
	Page     int    // entries read at a time, 0 = some thousands
}

// Event is one change that a commit made.
type Event struct {
	Entry   // of a deletion: the key, and the revision of the deletion
	Deleted bool
}

// Batch is all changes of one commit, in the order of its writes. It is empty
// when something else than a Store moved the revision.
type Batch struct {
	Revision int64
	Events   []Event
}

// Stream is a running watch.
type Stream interface {
	// Batches is closed when the stream ends.
	Batches() <-chan Batch
	// Err says why the stream ended; valid once Batches is closed.
	Err() error
}

// Errors of a Store.
var (
	ErrCompacted   = errors.New("the revision was compacted")
	ErrFuture      = errors.New("the revision is not there yet")
	ErrTooLarge    = errors.New("the transaction is too large for the store")
	ErrFull        = errors.New("the store has no room left")
	ErrUnavailable = errors.New("the store cannot be reached")
)

// Conflict says that the key of a write was not at the revision that the
// writer expected.
type Conflict struct {
	Key     string
	Current *Entry // nil = there is no such key
}

func (c *Conflict) Error() string {
	if c.Current == nil {
		return fmt.Sprintf("%s does not exist", c.Key)
	}
	return fmt.Sprintf("%s is at revision %d", c.Key, c.Current.Revision)
}
