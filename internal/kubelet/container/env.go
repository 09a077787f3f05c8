package container

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// Objects that pods refer to. Errors are apimachinery StatusErrors.
type Objects interface {
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
	// Services of a namespace, and the API server's own.
	Services(namespace string) []*v1.Service
}

// Env of a container: what the pod's namespace offers as services, envFrom, env,
// the later ones over the earlier ones. The order of names is that of the list.
func Env(in *Input) (names []string, env map[string]string, err error) {
	env = map[string]string{}
	pod, c := in.Pod, in.Container
	put := func(k, v string) {
		if _, ok := env[k]; !ok {
			names = append(names, k)
		}
		env[k] = v
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	services := map[string]string{}
	for _, s := range in.Objects.Services(pod.Namespace) {
		if links && s.Namespace == pod.Namespace || s.Namespace == v1.NamespaceDefault && s.Name == "kubernetes" {
			serviceEnv(s, services)
		}
	}
	own := map[string]string{}
	for _, from := range c.EnvFrom {
		data, err := envFrom(in, &from)
		if err != nil {
			return nil, nil, err
		}
		for _, k := range slices.Sorted(maps.Keys(data)) {
			own[from.Prefix+k] = data[k]
			put(from.Prefix+k, data[k])
		}
	}
	lookup := func(n string) (string, bool) {
		if v, ok := own[n]; ok {
			return v, true
		}
		v, ok := services[n]
		return v, ok
	}
	for i := range c.Env {
		e := &c.Env[i]
		value, ok := Expand(e.Value, lookup), true
		if e.Value == "" && e.ValueFrom != nil {
			if value, ok, err = in.valueFrom(e.ValueFrom); err != nil {
				return nil, nil, err
			}
		}
		if ok {
			own[e.Name] = value
			put(e.Name, value)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(services)) {
		if _, ok := env[k]; !ok {
			put(k, services[k])
		}
	}
	return names, env, nil
}

func envFrom(in *Input, from *v1.EnvFromSource) (map[string]string, error) {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		m, err := in.Objects.ConfigMap(in.Pod.Namespace, from.ConfigMapRef.Name)
		if err != nil {
			return nil, missing(err, from.ConfigMapRef.Optional)
		}
		return m.Data, nil
	case from.SecretRef != nil:
		m, err := in.Objects.Secret(in.Pod.Namespace, from.SecretRef.Name)
		if err != nil {
			return nil, missing(err, from.SecretRef.Optional)
		}
		for k, v := range m.Data {
			data[k] = string(v)
		}
	}
	return data, nil
}

// missing is the error of an object that is not there, nil if it need not be.
func missing(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return nil
	}
	return err
}

func (in *Input) valueFrom(from *v1.EnvVarSource) (value string, ok bool, err error) {
	ns := in.Pod.Namespace
	switch {
	case from.FieldRef != nil:
		value, err = Field(in.Pod, from.FieldRef.FieldPath, in.HostIPs, in.PodIPs)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = Resource(in.Pod, in.Container, from.ResourceFieldRef, in.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		m, err := in.Objects.ConfigMap(ns, r.Name)
		if err != nil {
			return "", false, missing(err, r.Optional)
		}
		if value, ok = m.Data[r.Key]; !ok && !ptr.Deref(r.Optional, false) {
			err = fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, ns, r.Name)
		}
		return value, ok, err
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		m, err := in.Objects.Secret(ns, r.Name)
		if err != nil {
			return "", false, missing(err, r.Optional)
		}
		b, ok := m.Data[r.Key]
		if !ok && !ptr.Deref(r.Optional, false) {
			err = fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, ns, r.Name)
		}
		return string(b), ok, err
	case from.FileKeyRef != nil:
		return in.fromFile(from.FileKeyRef)
	}
	return "", false, nil
}

// fromFile reads KEY=VALUE from a file that an init container left in a volume (KEP-3721).
func (in *Input) fromFile(r *v1.FileKeySelector) (string, bool, error) {
	optional := ptr.Deref(r.Optional, false)
	dir, ok := in.Volumes[r.VolumeName]
	if !ok {
		return "", false, fmt.Errorf("volume %q of fileKeyRef is not mounted", r.VolumeName)
	}
	root, err := os.OpenRoot(dir.Path)
	if err != nil {
		return "", false, fmt.Errorf("cannot open volume %q: %w", r.VolumeName, err)
	}
	defer root.Close()
	f, err := root.Open(r.Path)
	if os.IsNotExist(err) && optional {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file %q: %w", r.Path, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		k, v, found := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if found && k == r.Key {
			return strings.Trim(v, "'"), true, nil
		}
	}
	if optional {
		return "", false, lines.Err()
	}
	return "", false, fmt.Errorf("environment variable key %q not found in file %q", r.Key, r.Path)
}

// serviceEnv are the variables that tell of a service, in Docker's links style too.
func serviceEnv(s *v1.Service, env map[string]string) {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == v1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	name := envName(s.Name)
	port := func(p v1.ServicePort) string { return strconv.Itoa(int(p.Port)) }
	env[name+"_SERVICE_HOST"] = ip
	env[name+"_SERVICE_PORT"] = port(s.Spec.Ports[0])
	host := ip
	if strings.Contains(ip, ":") {
		host = "[" + ip + "]"
	}
	for i, p := range s.Spec.Ports {
		if p.Name != "" {
			env[name+"_SERVICE_PORT_"+envName(p.Name)] = port(p)
		}
		proto := string(p.Protocol)
		if proto == "" {
			proto = "TCP"
		}
		url := strings.ToLower(proto) + "://" + host + ":" + port(p)
		if i == 0 {
			env[name+"_PORT"] = url
		}
		prefix := name + "_PORT_" + port(p) + "_" + strings.ToUpper(proto)
		env[prefix] = url
		env[prefix+"_PROTO"] = strings.ToLower(proto)
		env[prefix+"_PORT"] = port(p)
		env[prefix+"_ADDR"] = ip
	}
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
