package container

import (
	"errors"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

type objects struct {
	maps     map[string]map[string]string
	services []*v1.Service
}

func (o objects) ConfigMap(ns, name string) (*v1.ConfigMap, error) {
	if d, ok := o.maps[name]; ok {
		return &v1.ConfigMap{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o objects) Secret(ns, name string) (*v1.Secret, error) {
	s := &v1.Secret{Data: map[string][]byte{}}
	d, ok := o.maps[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	for k, v := range d {
		s.Data[k] = []byte(v)
	}
	return s, nil
}

func (o objects) Services(string) []*v1.Service { return o.services }

func TestExpand(t *testing.T) {
	lookup := func(n string) (string, bool) { v, ok := map[string]string{"A": "1", "B": ""}[n]; return v, ok }
	for in, want := range map[string]string{
		"plain": "plain", "$(A)": "1", "x$(A)y": "x1y", "$(B)": "", "$(C)": "$(C)", "$$(A)": "$(A)", "$A": "$A", "$(A": "$(A", "$$": "$", "a$": "a$",
	} {
		if got := Expand(in, lookup); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func input(c v1.Container) *Input {
	return &Input{
		Node: &Node{ClusterDomain: "cluster.local", Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("4Gi")}},
		Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u", Labels: map[string]string{"app": "x"}},
			Spec: v1.PodSpec{NodeName: "node", Containers: []v1.Container{c}}},
		Container: &c, HostIPs: []string{"1.2.3.4"}, PodIPs: []string{"10.0.0.1", "fd00::1"},
		Objects: objects{
			maps: map[string]map[string]string{"m": {"k": "v", "other": "w"}},
			services: []*v1.Service{{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "my-db"},
				Spec: v1.ServiceSpec{ClusterIP: "10.1.1.1", Ports: []v1.ServicePort{{Name: "sql", Port: 5432, Protocol: v1.ProtocolTCP}}}}},
		},
	}
}

func TestEnv(t *testing.T) {
	field := func(path string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
	}
	in := input(v1.Container{
		Name: "c",
		EnvFrom: []v1.EnvFromSource{
			{Prefix: "P_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "m"}}},
			{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, Optional: ptr.To(true)}},
		},
		Env: []v1.EnvVar{
			{Name: "ONE", Value: "1"}, {Name: "TWO", Value: "$(ONE)-$(P_k)-$(MY_DB_SERVICE_PORT)-$(LATER)"}, {Name: "LATER", Value: "x"},
			{Name: "POD", ValueFrom: field("metadata.name")}, {Name: "APP", ValueFrom: field("metadata.labels['app']")}, {Name: "IPS", ValueFrom: field("status.podIPs")},
			{Name: "HOST", ValueFrom: field("status.hostIP")},
			{Name: "KEY", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "m"}, Key: "other"}}},
			{Name: "GONE", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "m"}, Key: "no", Optional: ptr.To(true)}}},
			{Name: "MEM", ValueFrom: &v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		},
	})
	_, env, err := Env(in)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"P_k": "v", "TWO": "1-v-5432-$(LATER)", "POD": "p", "APP": "x", "IPS": "10.0.0.1,fd00::1", "HOST": "1.2.3.4", "KEY": "w", "MEM": "4096",
		"MY_DB_SERVICE_HOST": "10.1.1.1", "MY_DB_SERVICE_PORT_SQL": "5432", "MY_DB_PORT_5432_TCP": "tcp://10.1.1.1:5432",
	} {
		if env[k] != want {
			t.Errorf("%s=%q, want %q", k, env[k], want)
		}
	}
	if _, ok := env["GONE"]; ok {
		t.Error("an optional key that is not there gives no variable")
	}
}

func TestEnvTellsWhatIsMissing(t *testing.T) {
	in := input(v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "m"}, Key: "no"}}}}})
	if _, _, err := Env(in); err == nil || err.Error() != "couldn't find key no in ConfigMap n/m" {
		t.Errorf("a missing key: %v", err)
	}
	in = input(v1.Container{EnvFrom: []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "none"}}}}})
	if _, _, err := Env(in); !apierrors.IsNotFound(err) {
		t.Errorf("a missing ConfigMap: %v", err)
	}
}

func TestHostsAndHostname(t *testing.T) {
	in := input(v1.Container{})
	in.Pod.Spec.Hostname, in.Pod.Spec.Subdomain = "web", "svc"
	in.Pod.Spec.HostAliases = []v1.HostAlias{{IP: "9.9.9.9", Hostnames: []string{"a", "b"}}}
	b, err := Hosts(in.Pod, in.Node, []string{"10.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"10.0.0.1\tweb.svc.n.svc.cluster.local\tweb\n", "9.9.9.9\ta\tb\n", "# Kubernetes-managed hosts file.\n"} {
		if !strings.Contains(string(b), line) {
			t.Errorf("no %q in\n%s", line, b)
		}
	}
}

func TestNonRoot(t *testing.T) {
	p, c := &v1.Pod{}, &v1.Container{Name: "c"}
	yes := ptr.To(true)
	for name, x := range map[string]struct {
		sc   v1.SecurityContext
		uid  *int64
		user string
		ok   bool
	}{
		"not asked for":        {v1.SecurityContext{}, ptr.To[int64](0), "", true},
		"image is root":        {v1.SecurityContext{RunAsNonRoot: yes}, ptr.To[int64](0), "", false},
		"image is not":         {v1.SecurityContext{RunAsNonRoot: yes}, ptr.To[int64](7), "", true},
		"image has a name":     {v1.SecurityContext{RunAsNonRoot: yes}, nil, "web", false},
		"the pod says a user":  {v1.SecurityContext{RunAsNonRoot: yes, RunAsUser: ptr.To[int64](5)}, ptr.To[int64](0), "", true},
		"the pod says is root": {v1.SecurityContext{RunAsNonRoot: yes, RunAsUser: ptr.To[int64](0)}, ptr.To[int64](7), "", false},
	} {
		if err := nonRoot(p, c, &x.sc, x.uid, x.user); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, errors.Unwrap(err))
		}
	}
}
