package core

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/api"
)

// fromYAML makes a defaulted object of a kind, and prepares it for creation as
// the verb does.
func fromYAML[T api.Object](t testing.TB, text string) T {
	t.Helper()
	var obj T
	for _, k := range Kinds() {
		o, ok := k.New().(T)
		if !ok {
			continue
		}
		if err := yaml.Unmarshal([]byte(text), o); err != nil {
			t.Fatal(err)
		}
		if k.Default != nil {
			k.Default(o)
		}
		return o
	}
	t.Fatal("no such kind")
	return obj
}

func kindOf(t testing.TB, obj api.Object) *api.Kind {
	t.Helper()
	c, err := api.NewCatalog(Kinds()...)
	if err != nil {
		t.Fatal(err)
	}
	k, ok := c.Type(obj)
	if !ok {
		t.Fatalf("%T is not described", obj)
	}
	return k
}

// wrong creates or updates obj, and returns what is wrong with it.
func wrong(t testing.TB, obj, old api.Object, sub string) string {
	t.Helper()
	k := kindOf(t, obj)
	if k.Reset != nil {
		k.Reset(obj, old, sub)
	}
	var all []string
	for _, e := range k.Validate(obj, old, sub) {
		all = append(all, e.Error())
	}
	return strings.Join(all, "\n")
}

const plainPod = `
metadata: {name: web, namespace: default, labels: {app: web}}
spec:
  containers:
  - name: web
    image: nginx
    ports: [{containerPort: 80}]
`

func plain(t testing.TB) *corev1.Pod { return fromYAML[*corev1.Pod](t, plainPod) }

// benchPod is a pod of 3.6 kB as a Deployment's ReplicaSet makes one.
func benchPod(t testing.TB) *corev1.Pod {
	p := fromYAML[*corev1.Pod](t, `
metadata:
  name: shop-frontend-6f9d8c7b5d-x2k4q
  generateName: shop-frontend-6f9d8c7b5d-
  namespace: production
  labels: {app.kubernetes.io/name: shop-frontend, app.kubernetes.io/instance: shop, app.kubernetes.io/part-of: shop, app.kubernetes.io/version: "1.42.0", pod-template-hash: 6f9d8c7b5d, tier: frontend}
  annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9102", checksum/config: 0f343b0931126a20f133d67c2b018a3b0931126a20f133d67c2b018a3b}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: shop-frontend-6f9d8c7b5d, uid: 6f2f4a8e-5a3c-4f6e-9a39-1d2c3b4a5f6e, controller: true, blockOwnerDeletion: true}]
spec:
  serviceAccountName: shop-frontend
  securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 2000, seccompProfile: {type: RuntimeDefault}}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 100, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app.kubernetes.io/name: shop-frontend}}}}
  tolerations:
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}
  initContainers:
  - name: migrate
    image: registry.example.com/shop/frontend:1.42.0
    command: [/app/migrate, --wait]
    envFrom: [{configMapRef: {name: shop-frontend}}, {secretRef: {name: shop-frontend}}]
    resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 128Mi}}
  containers:
  - name: frontend
    image: registry.example.com/shop/frontend:1.42.0
    args: [--listen=:8080, --metrics=:9102]
    ports: [{name: http, containerPort: 8080}, {name: metrics, containerPort: 9102}]
    env:
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: DB_HOST, value: shop-db.production.svc.cluster.local}
    - {name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: shop-db, key: password}}}
    - {name: LOG_LEVEL, valueFrom: {configMapKeyRef: {name: shop-frontend, key: log-level}}}
    resources: {requests: {cpu: 250m, memory: 256Mi}, limits: {cpu: "1", memory: 512Mi}}
    livenessProbe: {httpGet: {path: /healthz, port: http}, initialDelaySeconds: 10}
    readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 5}
    lifecycle: {preStop: {sleep: {seconds: 5}}}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: config, mountPath: /etc/shop, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    - {name: kube-api-access, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  - name: log-shipper
    image: registry.example.com/infra/fluent-bit:3.1
    resources: {requests: {cpu: 20m, memory: 32Mi}, limits: {memory: 64Mi}}
    volumeMounts: [{name: tmp, mountPath: /tmp, readOnly: true}]
  volumes:
  - {name: config, configMap: {name: shop-frontend}}
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  - name: kube-api-access
    projected:
      sources:
      - {serviceAccountToken: {path: token, expirationSeconds: 3607}}
      - {configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}
      - {downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}}
`)
	return p
}

func BenchmarkDefault(b *testing.B) {
	p := benchPod(b)
	raw, _ := json.Marshal(p)
	b.ReportMetric(float64(len(raw)), "B/pod")
	b.ReportAllocs()
	for b.Loop() {
		defaultPod(p)
	}
}

func BenchmarkReset(b *testing.B) {
	p := benchPod(b)
	b.ReportAllocs()
	for b.Loop() {
		createPod(p)
	}
}

func BenchmarkValidate(b *testing.B) {
	p := benchPod(b)
	k := kindOf(b, p)
	k.Reset(p, nil, "")
	if e := k.Validate(p, nil, ""); e != nil {
		b.Fatal(e)
	}
	b.ReportAllocs()
	for b.Loop() {
		k.Validate(p, nil, "")
	}
}

func BenchmarkWarn(b *testing.B) {
	p := benchPod(b)
	b.ReportAllocs()
	for b.Loop() {
		warnPod(p, nil)
	}
}

func BenchmarkValidateStatus(b *testing.B) {
	p := benchPod(b)
	k := kindOf(b, p)
	k.Reset(p, nil, "")
	p.Status.PodIP, p.Status.PodIPs = "10.0.0.7", []corev1.PodIP{{IP: "10.0.0.7"}}
	b.ReportAllocs()
	for b.Loop() {
		k.Validate(p, p, "status")
	}
}

// An update that changes nothing of the spec, as a label's.
func BenchmarkValidateUpdate(b *testing.B) {
	p := benchPod(b)
	k := kindOf(b, p)
	k.Reset(p, nil, "")
	p.ResourceVersion = "1"
	q := p.DeepCopy()
	q.Labels["a"] = "b"
	b.ReportAllocs()
	for b.Loop() {
		k.Reset(q, p, "")
		if e := k.Validate(q, p, ""); e != nil {
			b.Fatal(e)
		}
	}
}
