package simulate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/api/wire"
)

// Shape is nodes of one sort.
type Shape struct {
	Name        string              `json:"name"`  // nodes are called NAME-00000 …
	Count       int                 `json:"count"` // how many
	Allocatable corev1.ResourceList `json:"allocatable"`
	Zones       []string            `json:"zones,omitempty"` // given out in turn, as topology.kubernetes.io/zone
	Labels      map[string]string   `json:"labels,omitempty"`
	Taints      []corev1.Taint      `json:"taints,omitempty"`
}

// ReadShapes reads a YAML file of "nodes:", a list of shapes. The error names the
// field that is wrong.
func ReadShapes(text []byte) ([]Shape, error) {
	var file struct {
		Nodes []Shape `json:"nodes"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, fmt.Errorf("not a file of node shapes (nodes: [{name, count, allocatable: {cpu, memory, pods}, zones, labels, taints}]): %w", err)
	}
	for i, s := range file.Nodes {
		if s.Name == "" || s.Count <= 0 {
			return nil, fmt.Errorf("nodes[%d]: name and count (1 or more) are needed", i)
		}
	}
	return file.Nodes, nil
}

// Uniform is count nodes of 32 CPUs and 256 Gi in three zones.
func Uniform(count int) []Shape {
	list := corev1.ResourceList{}
	for name, q := range map[corev1.ResourceName]string{"cpu": "32", "memory": "256Gi", "pods": "110"} {
		list[name] = mustParse(q)
	}
	return []Shape{{Name: "node", Count: count, Allocatable: list, Zones: []string{"a", "b", "c"}}}
}

func makeNodes(shapes []Shape) ([]*corev1.Node, error) {
	var all []*corev1.Node
	for _, s := range shapes {
		if _, ok := s.Allocatable[corev1.ResourcePods]; !ok {
			s.Allocatable = maps.Clone(s.Allocatable)
			if s.Allocatable == nil {
				s.Allocatable = corev1.ResourceList{}
			}
			s.Allocatable[corev1.ResourcePods] = mustParse("110")
		}
		for i := range s.Count {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%05d", s.Name, i), Labels: maps.Clone(s.Labels)}}
			if n.Labels == nil {
				n.Labels = map[string]string{}
			}
			n.Labels[corev1.LabelHostname] = n.Name
			if len(s.Zones) > 0 {
				n.Labels[corev1.LabelTopologyZone] = s.Zones[i%len(s.Zones)]
			}
			n.Spec.Taints = s.Taints
			n.Status.Capacity, n.Status.Allocatable = s.Allocatable, s.Allocatable
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no nodes: name a file of shapes with --nodes-file, or a number with --nodes")
	}
	return all, nil
}

// Read manifests, YAML or JSON, several in one stream.
func Read(in io.Reader) ([]api.Object, error) {
	catalog := kinds.Catalog()
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	var all []api.Object
	docs := kyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	buf := make([]byte, len(text)+1)
	for {
		n, err := docs.Read(buf)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		doc := buf[:n]
		if strings.TrimSpace(string(doc)) == "" {
			continue
		}
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &head); err != nil {
			return nil, err
		}
		if head.Kind == "" {
			continue
		}
		served, ok := catalog.Kind(head.GroupVersionKind())
		if !ok {
			return nil, fmt.Errorf("no kind %s in %s", head.Kind, head.APIVersion)
		}
		obj, _, err := wire.Decode(wire.YAML, bytes.Clone(doc), served, wire.Strict)
		if err != nil {
			return nil, err
		}
		if !served.Kind.Cluster && obj.GetNamespace() == "" {
			obj.SetNamespace(corev1.NamespaceDefault)
		}
		all = append(all, obj)
	}
}

func mustParse(q string) resource.Quantity { return resource.MustParse(q) }
