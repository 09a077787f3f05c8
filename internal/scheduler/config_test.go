package scheduler

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func parse(t *testing.T, text string) *Configuration {
	t.Helper()
	c, err := ParseConfiguration([]byte(head + text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfiguration(t *testing.T) {
	c := parse(t, `
podInitialBackoffSeconds: 3
podMaxBackoffSeconds: 30
percentageOfNodesToScore: 50
leaderElection: {leaderElect: false}
profiles:
- schedulerName: default-scheduler
  plugins:
    multiPoint: {disabled: [{name: ImageLocality}], enabled: [{name: NodeAffinity, weight: 7}]}
    filter: {disabled: [{name: TaintToleration}]}
    score: {disabled: [{name: "*"}], enabled: [{name: NodeResourcesFit, weight: 9}, {name: NodeAffinity}]}
    postFilter: {disabled: [{name: DefaultPreemption}]}
  pluginConfig:
  - name: InterPodAffinity
    args: {apiVersion: kubescheduler.config.k8s.io/v1, kind: InterPodAffinityArgs, hardPodAffinityWeight: 5}
  - name: VolumeBinding
    args: {bindTimeoutSeconds: 20}
  - name: DynamicResources
    args: {filterTimeout: 2s}
- schedulerName: packer
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}]}}
`)
	o := c.Profiles["default-scheduler"]
	switch {
	case c.BackoffFirst != 3*time.Second || c.BackoffMost != 30*time.Second:
		t.Errorf("back-off %v to %v", c.BackoffFirst, c.BackoffMost)
	case o.filters.has(taintToleration) || o.filters.has(defaultPreemption) || !o.filters.has(nodeAffinity) || !o.filters.has(schedulingGates):
		t.Errorf("filters %b", o.filters)
	case o.weights != [pluginCount]int64{nodeResourcesFit: 9, nodeAffinity: 1}:
		t.Errorf("weights %v", o.weights)
	case o.hardAffinity != 5 || o.volumeTimeout != 20*time.Second || o.allocateTimeout != 2*time.Second:
		t.Errorf("arguments %+v", o)
	case c.Profiles["packer"].fit.kind != mostFull || c.Profiles["packer"].weights != usualWeights:
		t.Errorf("packer %+v", c.Profiles["packer"])
	}
}

func TestConfigurationErrors(t *testing.T) {
	for text, want := range map[string]string{
		"profile: []":                                                                                    "profile: Invalid value: there is no such field",
		"profiles: [{plugin: {}}]":                                                                       "profiles[0].plugin: Invalid value: there is no such field",
		"percentageOfNodesToScore: 101":                                                                  "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
		"podInitialBackoffSeconds: 0":                                                                    "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
		"podMaxBackoffSeconds: 0":                                                                        "podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to podInitialBackoffSeconds",
		"profiles: [{}, {schedulerName: a}]":                                                             "profiles[0].schedulerName: Required value",
		"profiles: [{schedulerName: a}, {schedulerName: a}]":                                             `profiles[1].schedulerName: Duplicate value: "a"`,
		"profiles: [{plugins: {score: {disabled: [{name: Nope}]}}}]":                                     `profiles[0].plugins.score.disabled[0].name: Unsupported value: "Nope": supported values: "DynamicResources"`,
		"profiles: [{plugins: {score: {enabled: [{name: NodePorts}]}}}]":                                 `profiles[0].plugins.score.enabled[0].name: Unsupported value: "NodePorts"`,
		"profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]":                                       "profiles[0].plugins.bind: Invalid value: one plugin has to be enabled",
		"profiles: [{pluginConfig: [{name: Nope}]}]":                                                     `profiles[0].pluginConfig[0].name: Unsupported value: "Nope"`,
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {weight: 1}}]}]":                      "profiles[0].pluginConfig[0].args.weight: Invalid value: there is no such field",
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]":     "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Least}}}]}]": `profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Least"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]":                                     "profiles[0].pluginConfig[0].args.scoringStrategy.requestedToCapacityRatio: Required value",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}]}}]}]": "profiles[0].pluginConfig[0].args.defaultingType: Invalid value",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: -1}}]}]":                                                                   "profiles[0].pluginConfig[0].args.bindTimeoutSeconds: Invalid value: -1",
		"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]":                                                                                               "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: cpu}]}]":                                                                                 `extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name`,
		"extenders: [{urlPrefix: 'http://x', tlsConfig: {caFile: /none}}]":                                                                                      "extenders[0].tlsConfig: Invalid value",
	} {
		_, err := ParseConfiguration([]byte(head + text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got  %v\n want %s", text, err, want)
		}
	}
	if _, err := ParseConfiguration([]byte("apiVersion: v1\nkind: Pod\n")); err == nil || !strings.Contains(err.Error(), "kubescheduler.config.k8s.io/v1") {
		t.Errorf("got %v", err)
	}
}

// What profiles change, by the node that a pod gets.
func TestStrategies(t *testing.T) {
	ratio := `
profiles:
- pluginConfig:
  - name: NodeResourcesFit
    args:
      scoringStrategy:
        type: RequestedToCapacityRatio
        resources: [{name: example.com/gpu, weight: 5}]
        requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
`
	gpus := func(n string) func(*corev1.Node) {
		return func(o *corev1.Node) { o.Status.Allocatable["example.com/gpu"] = resource.MustParse(n) }
	}
	asks := func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"example.com/gpu": resource.MustParse("1")}
	}
	for what, c := range map[string]struct{ config, want string }{
		"least": {"", "many"},
		"ratio": {ratio, "few"},
		"most":  {"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, resources: [{name: example.com/gpu}]}}}]}]", "few"},
	} {
		w := newWorld(1, parse(t, c.config))
		w.setNode(aNode("few", "z", gpus("2")))
		w.setNode(aNode("many", "z", gpus("8")))
		w.with("few", aPod("x", cpu("100m")))
		if r := w.plan(w.newPod(aPod("p", asks))); r.node.name != c.want {
			t.Errorf("%s: got %s, want %s", what, r.node.name, c.want)
		}
	}
	hard := "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}]}}]}]"
	w := NewWorld(1, parse(t, hard))
	w.Set(aNode("a", "y"), aNode("b", "z"), &corev1.Service{ObjectMeta: aPod("s").ObjectMeta, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "a"}}})
	for i, want := range []string{"", "", "0/2"} {
		full := aPod("x"+string(rune('0'+i)), cpu("3"))
		on, why := w.Schedule(t.Context(), full)
		if (on == "") != (want != "") {
			t.Errorf("pod %d: %q %q", i, on, why)
		}
	}
}
