package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// create the objects of a file, each as soon as its kind is served.
func create(t testing.TB, conf *rest.Config, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	client := dynamic.NewForConfigOrDie(conf)
	docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	mapper := mapperOf(t, conf)
	for {
		u := &unstructured.Unstructured{}
		if err := docs.Decode(u); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		gvk := u.GroupVersionKind()
		eventually(t, 30*time.Second, fmt.Sprintf("create %s %s", gvk.Kind, u.GetName()), func() error {
			m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
			if err != nil {
				mapper = mapperOf(t, conf)
				return err
			}
			_, err = client.Resource(m.Resource).Namespace(u.GetNamespace()).Create(t.Context(), u, metav1.CreateOptions{})
			return err
		})
	}
}

func mapperOf(t testing.TB, conf *rest.Config) meta.RESTMapper {
	t.Helper()
	groups, err := restmapper.GetAPIGroupResources(discovery.NewDiscoveryClientForConfigOrDie(conf))
	if err != nil {
		t.Fatal(err)
	}
	return restmapper.NewDiscoveryRESTMapper(groups)
}

// everything that an API server shows, by "group/version/resource namespace/name".
func everything(t testing.TB, conf *rest.Config) map[string]*unstructured.Unstructured {
	t.Helper()
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(conf).ServerPreferredResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) { // of the one that nobody serves
		t.Fatal(err)
	}
	client := dynamic.NewForConfigOrDie(conf)
	all := map[string]*unstructured.Unstructured{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			if !slices.Contains(r.Verbs, "list") || strings.Contains(r.Name, "/") {
				continue
			}
			found, err := client.Resource(gv.WithResource(r.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Errorf("list %s %s: %v", gv, r.Name, err)
				continue
			}
			for i := range found.Items {
				o := &found.Items[i]
				all[gv.String()+"/"+r.Name+" "+o.GetNamespace()+"/"+o.GetName()] = o
			}
		}
	}
	return all
}

// differences between two objects, as paths with both values.
func differences(path string, a, b any) (all []string) {
	x, okX := a.(map[string]any)
	y, okY := b.(map[string]any)
	if !okX || !okY {
		if !reflect.DeepEqual(a, b) {
			ja, _ := json.Marshal(a)
			jb, _ := json.Marshal(b)
			all = append(all, fmt.Sprintf("%s: %s ≠ %s", path, ja, jb))
		}
		return all
	}
	for k := range x {
		all = append(all, differences(path+"."+k, x[k], y[k])...)
	}
	for k := range y {
		if _, both := x[k]; !both {
			all = append(all, differences(path+"."+k, nil, y[k])...)
		}
	}
	return all
}
