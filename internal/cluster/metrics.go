package cluster

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/metrics"
	"github.com/proa-dev/proa/internal/apiserver"
	"github.com/proa-dev/proa/internal/apiserver/auth"
	"github.com/proa-dev/proa/internal/apiserver/usage"
	"github.com/proa-dev/proa/internal/cache"
)

// measured are the kinds of metrics.k8s.io, as the catalog has them. A
// metrics-server that the user installs takes their place.
func (s *server) measured() (all []*api.Kind) {
	for _, k := range metrics.Kinds() {
		if served, ok := s.catalog.Resource(k.GroupVersionResource()); ok {
			all = append(all, served.Kind)
		}
	}
	return all
}

// makers of what is worked out when somebody asks: what pods and nodes use.
func (s *server) makers() map[schema.GroupResource]apiserver.Maker {
	of := func(like api.Object) cache.Reader {
		k, ok := s.catalog.Type(like)
		if !ok {
			return nil
		}
		return s.cache.Of(k)
	}
	m := usage.New(usage.Config{
		Nodes: of(&corev1.Node{}), Pods: of(&corev1.Pod{}), TLS: s.certs.toKubelets(), Log: s.logFor("metrics"),
	})
	all := map[schema.GroupResource]apiserver.Maker{}
	for _, k := range s.measured() {
		all[k.GroupResource()] = m.Pods()
		if k.Cluster {
			all[k.GroupResource()] = m.Nodes()
		}
	}
	return all
}

// scalerAPI is the API as the autoscaler sees it, in the name that those who
// serve custom and external metrics give rights to.
func (s *server) scalerAPI() http.RoundTripper {
	return s.api.Transport(userOf(auth.ServiceAccountName(metav1.NamespaceSystem, "horizontal-pod-autoscaler")))
}
