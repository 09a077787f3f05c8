package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A database keeps its rows when its pod, its node or the server goes: each claim
// of a StatefulSet has a volume of its own, on the node where its pod is.
func TestDatabase(t *testing.T) {
	c := up(t, "e2e-database", 2)
	c.must(c.run("image", "import", shell(t)))
	c.must(c.kubectlIn(database, "apply", "-f", "-"))
	c.k("rollout", "status", "statefulset/database", "--timeout=120s")

	rows := map[string]string{"database-0": "", "database-1": ""}
	insert := func(row string) {
		t.Helper()
		for name := range rows {
			c.k("exec", name, "--", "sh", "-c", "echo "+row+" >> /data/rows && sync /data/rows")
			rows[name] += row + "\n"
		}
	}
	same := func(what string) {
		t.Helper()
		for name, want := range rows {
			c.eventually(60*time.Second, func() error {
				got, err := c.kubectl("exec", name, "--", "cat", "/data/rows")
				if err == nil && got != want {
					err = fmt.Errorf("%s: %s has %q, not %q", what, name, got, want)
				}
				return err
			})
		}
	}
	places := func() string {
		return c.k("get", "pods", "-l", "app=database", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}`)
	}
	before := places()

	insert("one")
	c.k("delete", "pod", "database-0", "database-1")
	c.k("rollout", "status", "statefulset/database", "--timeout=120s")
	same("its pods deleted")

	insert("two")
	c.k("scale", "statefulset/database", "--replicas=0")
	c.k("wait", "--for=delete", "pod", "-l", "app=database", "--timeout=60s")
	c.k("scale", "statefulset/database", "--replicas=2")
	c.k("rollout", "status", "statefulset/database", "--timeout=120s")
	same("scaled to nothing and back")

	insert("three")
	for _, n := range c.Status.Nodes[1:] {
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(c.Status.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	same("its server and its nodes killed")

	insert("four")
	c.must(c.run("down", "--name", c.name, "--runtime-dir", c.runtimeDir)) // its containers end, as when a machine starts anew
	c.start(2)
	c.k("rollout", "status", "statefulset/database", "--timeout=120s")
	same("its machines started anew")
	if after := places(); after != before {
		t.Errorf("the pods were on\n%s\nand are on\n%s: a volume is where it was made", before, after)
	}

	// A node asks for what nodes may have, and for nothing else.
	if log, err := os.ReadFile(filepath.Join(c.Status.DataDir, "nodes/2/agent.log")); err != nil || strings.Contains(string(log), "forbidden") {
		t.Errorf("%v\n%s", err, log)
	}

	// The claims stay when the StatefulSet goes; the volumes go with the claims.
	c.k("delete", "statefulset/database", "--wait")
	if got := c.k("get", "pvc", "-o", "jsonpath={.items[*].status.phase}"); got != "Bound Bound" {
		t.Errorf("claims without their StatefulSet: %s", got)
	}
	c.k("delete", "pvc", "--all")
	c.eventually(30*time.Second, func() error {
		if left := c.k("get", "pv", "-o", "name"); left != "" {
			return fmt.Errorf("volumes without their claims: %s", left)
		}
		return nil
	})
}

// shell is the archive of an image that has a shell.
func shell(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs a static busybox in PATH (the Debian package busybox-static)")
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, archive := filepath.Join(dir, "root"), filepath.Join(dir, "shell.tar")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh sleep cat echo sync") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "../../examples/pack", "--name", "shell:1", "--root", root, "--out", archive, "--env", "PATH=/bin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, out)
	}
	return archive
}

const database = `
apiVersion: v1
kind: Service
metadata: {name: database}
spec: {clusterIP: None, selector: {app: database}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: database}
spec:
  serviceName: database
  replicas: 2
  selector: {matchLabels: {app: database}}
  template:
    metadata: {labels: {app: database}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 999, fsGroup: 999}
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: database}}}
      containers:
      - name: database
        image: shell:1
        command: [sh, -c, "sleep 1000000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
`
