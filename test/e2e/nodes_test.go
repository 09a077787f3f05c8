package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Two nodes: pods of both reach each other, Services and DNS; an image that was
// imported is there for both and for every pull policy.
func TestTwoNodes(t *testing.T) {
	c := up(t, "e2e-nodes", 2)
	c.must(c.run("image", "import", twin(t)))
	var manifests strings.Builder
	for i, n := range c.Status.Nodes {
		policy := []string{"Always", "Never"}[i%2]
		fmt.Fprintf(&manifests, `
apiVersion: v1
kind: Pod
metadata: {name: p%d, labels: {app: twin}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: mdneuzerling/plumber-on-k8s, imagePullPolicy: %s, ports: [{containerPort: 8000}]}]
---`, i, n.Name, policy)
	}
	c.must(c.kubectlIn(manifests.String(), "apply", "-f", "-"))
	c.k("expose", "pod", "p1", "--port=8000", "--name=far")
	c.k("wait", "--for=condition=Ready", "pod", "-l", "app=twin", "--timeout=60s")
	for i := range c.Status.Nodes {
		ip := c.k("get", "pod", fmt.Sprintf("p%d", i), "-o", "jsonpath={.status.podIP}")
		c.eventually(20*time.Second, func() error {
			code, body, err := get("GET", "http://"+ip+":8000/parity?int=2")
			if err == nil && (code != 200 || body != "even") {
				err = fmt.Errorf("%d %q", code, body)
			}
			return err
		})
		c.k("logs", fmt.Sprintf("p%d", i))
	}
	// Through the API server, to the node in its own network namespace.
	if out := c.k("get", "--raw", "/api/v1/namespaces/default/services/far:8000/proxy/parity?int=7"); out != "odd" {
		t.Errorf("through the Service: %q", out)
	}
}
