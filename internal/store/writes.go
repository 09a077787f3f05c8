package store

import "fmt"

// CheckWrites says what is wrong with the form of a transaction: a key without
// its "/", or written twice. Implementations call it first.
func CheckWrites(writes []Write) error {
	for i, w := range writes {
		if len(w.Key) < 2 || w.Key[0] != '/' {
			return fmt.Errorf("store: the key %q of write %d does not begin with \"/\"", w.Key, i)
		}
	}
	if len(writes) == 0 {
		return fmt.Errorf("store: a transaction needs a write")
	}
	if len(writes) == 1 {
		return nil
	}
	seen := make(map[string]struct{}, len(writes))
	for _, w := range writes {
		if _, twice := seen[w.Key]; twice {
			return fmt.Errorf("store: the transaction writes %q twice", w.Key)
		}
		seen[w.Key] = struct{}{}
	}
	return nil
}
