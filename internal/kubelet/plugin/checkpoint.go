package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
)

// Checkpoint is a file in which a handler keeps as JSON what it has done for pods, so
// that a kubelet that comes later knows it, too. Whoever holds it guards it.
type Checkpoint struct {
	Path string
	last []byte // as read or written
}

// Load into v what was saved last. Where nothing was, v stays as it is.
func (c *Checkpoint) Load(v any) error {
	b, err := os.ReadFile(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	c.last = b
	return err
}

// Save v, if it is not what was saved last.
func (c *Checkpoint) Save(v any) error {
	b, err := json.Marshal(v)
	if err != nil || bytes.Equal(b, c.last) {
		return err
	}
	if err := Replace(c.Path, b); err != nil {
		return err
	}
	c.last = b
	return nil
}

// Replace the file at a path, or make it: whoever reads it sees all of the old or all
// of the new, even after the machine has lost its power. Only its owner can.
func Replace(path string, content []byte) error {
	next := path + ".new"
	if err := written(next, content); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// written to a file, and to the disk.
func written(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
