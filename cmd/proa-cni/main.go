// proa-cni is the CNI plugin of Proa's nodes; see internal/network/pod/cni.
package main

import (
	"os"

	"github.com/proa-dev/proa/internal/network/pod/cni"
)

func main() { os.Exit(cni.Main(os.Getenv, os.Stdin, os.Stdout)) }
