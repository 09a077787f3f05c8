package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// RunDir is where the sockets of a data folder's node are: below /run, since a
// socket's path may have no more than 107 bytes.
func RunDir(dataDir string) string {
	if abs, err := filepath.Abs(dataDir); err == nil {
		dataDir = abs
	}
	sum := sha256.Sum256([]byte(dataDir))
	return filepath.Join("/run/proa", hex.EncodeToString(sum[:4]))
}

// AdminKubeconfig of a server's data folder.
func AdminKubeconfig(dataDir string) string { return filepath.Join(dataDir, "admin.kubeconfig") }

func (c *Config) pki(name string) string { return filepath.Join(c.DataDir, "pki", name) }
func (c *Config) agentDir(name string) string {
	return filepath.Join(c.DataDir, "agent", name)
}
