package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Busy: more containers; quiet: fewer. And what "kubectl top" says meanwhile,
// with nothing installed.
func TestAutoscale(t *testing.T) {
	c := up(t, "e2e-autoscale", 1)
	const deployment = "deployment/plumber-on-k8s-deployment"
	replicas := func() (n int) {
		fmt.Sscan(c.k("get", deployment, "-o", "jsonpath={.spec.replicas}"), &n)
		return n
	}
	c.plumber()
	c.k("set", "resources", deployment, "--requests=cpu=10m")
	c.k("rollout", "status", deployment, "--timeout=120s")
	c.eventually(30*time.Second, func() error { // every pod has been measured
		out, err := c.kubectl("top", "pod", "--no-headers")
		if n := len(usage.FindAllString(out, -1)); err == nil && n != 3 {
			err = fmt.Errorf("kubectl top pod:\n%s", out)
		}
		return err
	})
	if out := c.k("top", "node", "--no-headers"); !usage.MatchString(out) {
		t.Errorf("kubectl top node:\n%s", out)
	}

	c.k("apply", "-f", "../../examples/plumber/autoscale.yaml")
	c.eventually(40*time.Second, func() error {
		if got := c.k("get", "hpa", "plumber-on-k8s", "--no-headers"); strings.Contains(got, "unknown") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	l := startLoad(c.Status.Ingress+"/parity?int=15", 400)
	began := time.Now()
	c.eventually(60*time.Second, func() error {
		if n := replicas(); n <= 3 {
			return fmt.Errorf("%d replicas: %s", n, c.k("get", "hpa", "plumber-on-k8s", "--no-headers"))
		}
		return nil
	})
	took := time.Since(began)
	t.Logf("scaled out to %d after %s, %d requests", replicas(), took.Round(time.Second), l.sent.Load())
	if took > 30*time.Second {
		t.Errorf("it took %s to scale out", took)
	}
	c.k("rollout", "status", deployment, "--timeout=120s")
	l.stop()
	<-l.done
	if failed := l.failures(); len(failed) > 0 {
		t.Errorf("%d requests failed, the first: %s", len(failed), failed[0])
	}
	began = time.Now()
	c.eventually(2*time.Minute, func() error {
		if n := replicas(); n != 3 {
			return fmt.Errorf("%d replicas: %s", n, c.k("get", "hpa", "plumber-on-k8s", "--no-headers"))
		}
		return nil
	})
	t.Logf("scaled back in after %s", time.Since(began).Round(time.Second))
	c.eventually(10*time.Second, func() error {
		out := c.k("describe", "hpa", "plumber-on-k8s")
		for _, want := range []string{
			`New size: \d; reason: cpu resource utilization \(percentage of request\) above target`,
			`New size: 3; reason: All metrics below target`,
			`AbleToScale +True`, `ScalingActive +True +ValidMetricFound +the HPA was able to successfully calculate a replica count from cpu resource utilization \(percentage of request\)`,
			`resource cpu on pods +\(as a percentage of request\): +\d+% \(\d+m\) / 60%`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				return fmt.Errorf("%q is not in\n%s", want, out)
			}
		}
		return nil
	})
}

// usage as kubectl top prints it.
var usage = regexp.MustCompile(` \d+m +.*\d+Mi`)

// Whatever has a scale can be a target, and whoever serves metrics is asked.
func TestAutoscaleByOthers(t *testing.T) {
	c := up(t, "e2e-hpa-others", 1)
	c.plumber()

	t.Run("a custom resource", func(t *testing.T) {
		c.must(c.kubectlIn(fleets, "apply", "-f", "-"))
		c.k("wait", "--for=condition=Established", "crd/fleets.example.com")
		c.must(c.kubectlIn(fleet, "apply", "-f", "-"))
		c.eventually(30*time.Second, func() error {
			if got := c.k("get", "fleet", "first", "-o", "jsonpath={.spec.size}"); got != "4" {
				return fmt.Errorf("size %s\n%s", got, c.k("describe", "hpa", "fleet"))
			}
			return nil
		})
		c.k("delete", "hpa", "fleet")
	})

	// A server beside the cluster, in the way of metrics-server and adapters.
	address := c.others(map[string]string{
		"/apis/metrics.k8s.io/v1beta1": `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"metrics.k8s.io/v1beta1","resources":[
			{"name":"nodes","singularName":"","namespaced":false,"kind":"NodeMetrics","verbs":["get","list"]},{"name":"pods","singularName":"","namespaced":true,"kind":"PodMetrics","verbs":["get","list"]}]}`,
		"/apis/metrics.k8s.io/v1beta1/nodes": `{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[
			{"metadata":{"name":"proa-e2e-hpa-others"},"timestamp":"2026-01-01T00:00:00Z","window":"15s","usage":{"cpu":"7","memory":"77Mi"}}]}`,
		"/apis/custom.metrics.k8s.io/v1beta2": `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"custom.metrics.k8s.io/v1beta2","resources":[{"name":"pods/qps","singularName":"","namespaced":true,"kind":"MetricValueList","verbs":["get"]}]}`,
		"/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/plumber-on-k8s-service/qps": `{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","metadata":{},"items":[
			{"describedObject":{"kind":"Service","namespace":"default","name":"plumber-on-k8s-service","apiVersion":"/v1"},"metric":{"name":"qps"},"timestamp":"2026-01-01T00:00:00Z","value":"500"}]}`,
	})

	t.Run("a metrics-server of the user's own", func(t *testing.T) {
		if ours := c.k("top", "node", "--no-headers"); strings.Contains(ours, "7000m") {
			t.Fatal(ours)
		}
		c.must(c.kubectlIn(fmt.Sprintf(otherServer, "v1beta1", "metrics.k8s.io", address.Hostname(), address.Port()), "apply", "-f", "-"))
		c.eventually(30*time.Second, func() error {
			out, err := c.kubectl("top", "node", "--no-headers")
			if err == nil && !strings.Contains(out, "7000m") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
		c.k("delete", "apiservice", "v1beta1.metrics.k8s.io")
		c.eventually(30*time.Second, func() error {
			out, err := c.kubectl("top", "node", "--no-headers")
			if err == nil && strings.Contains(out, "7000m") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	})

	t.Run("a custom metric", func(t *testing.T) {
		c.must(c.kubectlIn(fmt.Sprintf(otherServer, "v1beta2", "custom.metrics.k8s.io", address.Hostname(), address.Port()), "apply", "-f", "-"))
		c.k("wait", "--for=condition=Available", "apiservice/v1beta2.custom.metrics.k8s.io", "--timeout=60s")
		c.must(c.kubectlIn(byQPS, "apply", "-f", "-"))
		c.eventually(30*time.Second, func() error {
			if got := c.k("get", "deployment", "plumber-on-k8s-deployment", "-o", "jsonpath={.spec.replicas}"); got != "5" {
				return fmt.Errorf("%s replicas\n%s", got, c.k("describe", "hpa", "qps"))
			}
			return nil
		})
	})
}

// others serves documents where the cluster reaches them, in the place of
// servers that are installed into it.
func (c *cluster) others(documents map[string]string) *url.URL {
	c.t.Helper()
	server, err := url.Parse(c.Status.Server)
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(server.Hostname(), "0"))
	if err != nil {
		c.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		doc, ok := documents[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, doc)
	}))
	s.Listener.Close()
	s.Listener = l
	s.StartTLS()
	c.t.Cleanup(s.Close)
	at, err := url.Parse(s.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	return at
}

const fleets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fleets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: fleets, singular: fleet, kind: Fleet}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
          status: {type: object, properties: {size: {type: integer}, selector: {type: string}}}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size, labelSelectorPath: .status.selector}
`

const fleet = `
apiVersion: example.com/v1
kind: Fleet
metadata: {name: first}
spec: {size: 1}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: fleet}
spec:
  scaleTargetRef: {apiVersion: example.com/v1, kind: Fleet, name: first}
  minReplicas: 4
  maxReplicas: 9
`

// otherServer of a version and group, at an address and port.
const otherServer = `
apiVersion: v1
kind: Service
metadata: {name: others, namespace: kube-system}
spec:
  ports: [{port: 443, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: others, namespace: kube-system, labels: {kubernetes.io/service-name: others}}
addressType: IPv4
endpoints: [{addresses: ["%[3]s"], conditions: {ready: true}}]
ports: [{port: %[4]s, protocol: TCP, name: ""}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: %[1]s.%[2]s}
spec:
  group: %[2]s
  version: %[1]s
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: others, namespace: kube-system}
`

const byQPS = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: qps}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: plumber-on-k8s-deployment}
  maxReplicas: 9
  metrics:
  - type: Object
    object:
      metric: {name: qps}
      describedObject: {apiVersion: v1, kind: Service, name: plumber-on-k8s-service}
      target: {type: AverageValue, averageValue: "100"}
`
