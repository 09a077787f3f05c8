package simulate

import (
	"fmt"
	"strings"
	"testing"
)

const manifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 7
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]
`

func TestShapes(t *testing.T) {
	_, err := ReadShapes([]byte("nodes:\n- {name: a, count: 1, cpu: 4}\n"))
	if err == nil || !strings.Contains(err.Error(), `unknown field "cpu"`) {
		t.Errorf("got %v, want the unknown field named", err)
	}
}

// A Deployment that is too large for the cluster: what fits is placed, the rest
// says why.
func TestOnServer(t *testing.T) {
	shapes, err := ReadShapes([]byte("nodes:\n- {name: a, count: 2, allocatable: {cpu: \"3\", memory: 8Gi}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Read(strings.NewReader(manifest))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Config{Shapes: shapes, Objects: objects})
	if err != nil {
		t.Fatal(err)
	}
	if r.Pods != 7 || r.Placed != 6 || len(r.Why) != 1 || !strings.HasPrefix(r.Why[0].Message, "0/2 nodes are available: 2 Insufficient cpu.") {
		t.Errorf("got %+v", r)
	}
	if got := fmt.Sprint(r.Work); got != "[{default/web 7 6 2}]" {
		t.Errorf("work %s", got)
	}
}

// The same seed gives the same answer, and pods are spread evenly.
func TestDirect(t *testing.T) {
	var first string
	for range 2 {
		r, err := Run(t.Context(), Config{Shapes: Uniform(30), Pods: 300, Direct: true})
		if err != nil {
			t.Fatal(err)
		}
		if r.Placed != 300 || r.Spread > 0.0001 {
			t.Errorf("got %+v", r)
		}
		r.Seconds, r.PerSecond = 0, 0
		if got := fmt.Sprint(r); first == "" {
			first = got
		} else if got != first {
			t.Errorf("not the same again: %s, %s", first, got)
		}
	}
}
