package scheduler

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/api"
)

const driver = "d.example.com"

// aSlice of a node's devices, each with the attribute "model".
func aSlice(node string, models ...string) *resourcev1.ResourceSlice {
	s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "on-" + node}, Spec: resourcev1.ResourceSliceSpec{
		Driver: driver, NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1},
	}}
	for i, m := range models {
		s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: fmt.Sprint("dev", i), Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &m}}})
	}
	return s
}

func aDeviceClass(name string, change ...func(*resourcev1.DeviceClass)) *resourcev1.DeviceClass {
	c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "` + driver + `"`}}}
	for _, f := range change {
		f(c)
	}
	return c
}

func exactly(class string, count int64, cel string) resourcev1.DeviceRequest {
	r := &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}
	if cel != "" {
		r.Selectors = []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: cel}}}
	}
	return resourcev1.DeviceRequest{Name: "r", Exactly: r}
}

func aClaim(name string, r resourcev1.DeviceRequest, change ...func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}}
	c.Spec.Devices.Requests = []resourcev1.DeviceRequest{r}
	for _, f := range change {
		f(c)
	}
	return c
}

func allocatedOn(node, device string) func(*resourcev1.ResourceClaim) {
	return func(c *resourcev1.ResourceClaim) {
		c.Status.Allocation = &resourcev1.AllocationResult{
			Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Request: "r", Driver: driver, Pool: node, Device: device}}},
			NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}},
		}
	}
}

func claiming(names ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, name := range names {
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &name})
		}
	}
}

func onNode(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: name} }
}

func TestDevices(t *testing.T) {
	any, class := exactly("c", 1, ""), aDeviceClass("c")
	fast := exactly("c", 1, `device.attributes["`+driver+`"].model == "fast"`)
	either := resourcev1.DeviceRequest{Name: "r", FirstAvailable: []resourcev1.DeviceSubRequest{
		{Name: "best", DeviceClassName: "c", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1, Selectors: fast.Exactly.Selectors},
		{Name: "good", DeviceClassName: "c", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
	}}
	tainted := func(tolerated bool) *resourcev1.ResourceClaim {
		c := aClaim("x", exactly("c", 1, ""))
		if tolerated {
			c.Spec.Devices.Requests[0].Exactly.Tolerations = []resourcev1.DeviceToleration{{Operator: resourcev1.DeviceTolerationOpExists}}
		}
		return c
	}
	broken := aSlice("b", "slow")
	broken.Spec.Devices[0].Taints = []resourcev1.DeviceTaint{{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoSchedule}}
	shared := aSlice("b", "slow")
	shared.Spec.Devices[0].AllowMultipleAllocations = ptr.To(true)
	shared.Spec.Devices[0].Capacity = map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("10Gi")}}
	part := func(name, memory string) *resourcev1.ResourceClaim {
		c := aClaim(name, exactly("c", 1, ""))
		c.Spec.Devices.Requests[0].Exactly.Capacity = &resourcev1.CapacityRequirements{Requests: map[resourcev1.QualifiedName]resource.Quantity{"memory": resource.MustParse(memory)}}
		return c
	}
	failed := func(c *resourcev1.ResourceClaim) {
		r := &c.Status.Allocation.Devices.Results[0]
		r.BindingConditions, r.BindingFailureConditions = []string{"ready"}, []string{"dead"}
		c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: r.Driver, Pool: r.Pool, Device: r.Device, Conditions: []metav1.Condition{{Type: "dead", Status: metav1.ConditionTrue}}}}
	}
	full := func(c *resourcev1.ResourceClaim) {
		for i := range resourcev1.ResourceClaimReservedForMaxSize {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: fmt.Sprint(i), UID: types.UID(fmt.Sprint(i))})
		}
	}
	const none2 = "0/2 nodes are available: 2 cannot allocate all claims."
	for _, c := range []struct {
		what    string
		objects []api.Object
		claims  []string // one pod for each
		want    []string // the pods' nodes, or why not
	}{
		{"no claim", nil, []string{"x"}, []string{`0/2 nodes are available: could not find v1.ResourceClaim "ns/x".`}},
		{"a claim that goes", []api.Object{aClaim("x", any, func(c *resourcev1.ResourceClaim) { c.DeletionTimestamp = ptr.To(metav1.Now()) })}, []string{"x"}, []string{`0/2 nodes are available: resourceclaim "x" is being deleted.`}},
		{"no class", []api.Object{aClaim("x", any)}, []string{"x"}, []string{"0/2 nodes are available: request r: device class c does not exist."}},
		{"no devices", []api.Object{aClaim("x", any), class}, []string{"x"}, []string{none2}},
		{"where the device is", []api.Object{aClaim("x", any), class, aSlice("b", "slow")}, []string{"x"}, []string{"b"}},
		{"a selector", []api.Object{aClaim("x", fast), class, aSlice("a", "slow"), aSlice("b", "slow", "fast")}, []string{"x"}, []string{"b"}},
		{"one device, two claims", []api.Object{aClaim("x", any), aClaim("y", any), class, aSlice("b", "slow")}, []string{"x", "y"}, []string{"b", none2}},
		{"one device is taken", []api.Object{aClaim("x", any), aClaim("y", any, allocatedOn("b", "dev0")), class, aSlice("b", "slow")}, []string{"x"}, []string{none2}},
		{"a claim that is being allocated", []api.Object{aClaim("x", any), class, aSlice("b", "slow")}, []string{"x", "x"}, []string{"b", "0/2 nodes are available: resource claim ns/x is in the process of being allocated."}},
		{"allocated there", []api.Object{aClaim("x", any, allocatedOn("b", "dev0")), class}, []string{"x", "x"}, []string{"b", "b"}},
		{"allocated elsewhere", []api.Object{aClaim("x", any, allocatedOn("c", "dev0")), class}, []string{"x"}, []string{"0/2 nodes are available: 2 resourceclaim not available on the node."}},
		{"used by as many as may", []api.Object{aClaim("x", any, allocatedOn("b", "dev0"), full), class}, []string{"x"}, []string{"0/2 nodes are available: resourceclaim in use."}},
		{"the better alternative", []api.Object{aClaim("x", either), class, aSlice("a", "slow"), aSlice("b", "fast")}, []string{"x"}, []string{"b"}},
		{"the other alternative", []api.Object{aClaim("x", either), class, aSlice("a", "slow")}, []string{"x"}, []string{"a"}},
		{"tainted", []api.Object{tainted(false), class, broken}, []string{"x"}, []string{none2}},
		{"tainted, tolerated", []api.Object{tainted(true), class, broken}, []string{"x"}, []string{"b"}},
		{"parts of a device", []api.Object{part("x", "6Gi"), part("y", "4Gi"), part("z", "1Gi"), class, shared}, []string{"x", "y", "z"}, []string{"b", "b", none2}},
		{"a device that does not become ready", []api.Object{aClaim("x", any, allocatedOn("b", "dev0"), failed), class}, []string{"x"}, []string{"0/2 nodes are available: 2 resourceclaim not available on the node."}},
		{"a selector that is none", []api.Object{aClaim("x", exactly("c", 1, "nonsense(")), class, aSlice("b", "slow")}, []string{"x"}, []string{"claim ns/x: selector #0: CEL compile error: "}},
		{"a slice of all nodes is missing", []api.Object{aClaim("x", any), class, func() api.Object { s := aSlice("b", "slow"); s.Spec.Pool.ResourceSliceCount = 2; return s }()}, []string{"x"}, []string{none2}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := NewWorld(1, nil)
			w.Set(aNode("a", "y"), aNode("b", "z"))
			w.Set(c.objects...)
			for i, claim := range c.claims {
				node, why := w.Schedule(t.Context(), aPod(fmt.Sprint("p", i), claiming(claim)))
				if got := node + why; got != c.want[i] && (why == "" || len(got) < len(c.want[i]) || got[:len(c.want[i])] != c.want[i]) {
					t.Errorf("%s: got %q, want %q", claim, got, c.want[i])
				}
			}
		})
	}
}

// TestAllocations: what is taken follows what is assumed, written, seen and given back.
func TestAllocations(t *testing.T) {
	at := func(version string, change ...func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
		return aClaim("x", exactly("c", 1, ""), append(change, func(c *resourcev1.ResourceClaim) { c.ResourceVersion = version })...)
	}
	d := newDevices()
	taken := func(want int, when string) {
		t.Helper()
		if n := len(d.taken.AllocatedDevices); n != want {
			t.Fatalf("%s: %d devices are taken, not %d", when, n, want)
		}
	}
	free, full := at("1"), at("4", allocatedOn("b", "dev0"))
	d.setClaim(nil, free)
	d.assume(free, full.Status.Allocation)
	taken(1, "assumed")
	d.drop("ns/x", "x")
	taken(0, "given back")
	d.assume(free, full.Status.Allocation)
	d.setClaim(free, at("2"))
	taken(1, "changed meanwhile")
	d.wrote("ns/x", "x", "4")
	d.setClaim(at("2"), at("3"))
	if taken(1, "an event from before it was written"); d.pending["x"] == nil {
		t.Fatal("it is no longer pending before it is seen")
	}
	d.setClaim(at("3"), full)
	if taken(1, "seen"); d.pending["x"] != nil {
		t.Fatal("it is pending though it was seen")
	}
	d.setClaim(full, at("5"))
	taken(0, "deallocated")
	d.setClaim(at("5"), full)
	other := aClaim("y", exactly("c", 1, ""), allocatedOn("b", "dev0"))
	d.setClaim(nil, other)
	d.setClaim(full, nil)
	taken(1, "one of two that say they have it is gone")
	d.setClaim(other, nil)
	taken(0, "both are")
	d.assume(free, full.Status.Allocation)
	d.wrote("ns/x", "x", "4")
	taken(1, "written to a claim that is not known")
	for uid, key := range d.unseen() {
		d.drop(key, uid)
	}
	if taken(0, "it never came"); len(d.counted)+len(d.holders)+len(d.pending) > 0 {
		t.Errorf("left: %+v", d)
	}
}

func TestExtendedResources(t *testing.T) {
	const gpu = "example.com/gpu"
	class := aDeviceClass("c", func(c *resourcev1.DeviceClass) { c.Spec.ExtendedResourceName = ptr.To(gpu) })
	wants := func(name corev1.ResourceName, n string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Name = "c"
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse(n)}
		}
	}
	has := func(n *corev1.Node) { n.Status.Allocatable[gpu] = resource.MustParse("1") }
	w := NewWorld(1, nil)
	w.Set(aNode("a", "y"), aNode("b", "z"), aSlice("b", "x", "x", "x"))
	if _, why := w.Schedule(t.Context(), aPod("p", wants(gpu, "2"))); why != "0/2 nodes are available: 2 Insufficient example.com/gpu." {
		t.Errorf("no class: %q", why)
	}
	w.Set(class)
	for i, want := range []string{"b", "", "b"} {
		name, n := corev1.ResourceName(gpu), "2"
		if i == 2 {
			name, n = corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+"c"), "1"
		}
		if got, why := w.Schedule(t.Context(), aPod(fmt.Sprint("p", i), wants(name, n), func(p *corev1.Pod) { p.UID = types.UID(fmt.Sprint(i)) })); got != want {
			t.Errorf("%d: got %q %q, want %q", i, got, why, want)
		}
	}
	w.Set(aNode("a", "y", has))
	if got, why := w.Schedule(t.Context(), aPod("q", wants(gpu, "1"))); got != "a" {
		t.Errorf("a node that has it itself: got %q %q", got, why)
	}

	container := func(name string, n string) corev1.Container {
		c := corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}
		if n != "" {
			c.Resources.Requests[gpu] = resource.MustParse(n)
		}
		return c
	}
	spec := &corev1.PodSpec{InitContainers: []corev1.Container{container("init1", "3"), container("init2", "5")}, Containers: []corev1.Container{container("a", "1"), container("b", ""), container("c", "2")}}
	requests, mappings := deviceRequests(spec, map[corev1.ResourceName]*resourcev1.DeviceClass{gpu: class})
	got := ""
	for _, r := range requests {
		got += fmt.Sprintf("%s=%d ", r.Name, r.Exactly.Count)
	}
	for _, m := range mappings {
		got += m.ContainerName + ":" + m.RequestName + " "
	}
	if want := "container-1-request-1=2 container-2-request-1=1 container-4-request-1=2 a:container-2-request-1 c:container-4-request-1 " +
		"init1:container-2-request-1 init1:container-4-request-1 init2:container-2-request-1 init2:container-4-request-1 init2:container-1-request-1 "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestDeviceWakeUps: what may help against a claim that was not allocated.
func TestDeviceWakeUps(t *testing.T) {
	w := newWorld(1, nil)
	w.setNode(aNode("a", "y"))
	w.setNode(aNode("b", "z"))
	w.devices.setClaim(nil, aClaim("x", exactly("c", 1, "")))
	p := w.newPod(aPod("p", claiming("x"), onNode("a")))
	by := plugins(0).with(dynamicResources)
	for what, c := range map[string]struct {
		e    happening
		want bool
	}{
		"its claim":                   {happening{what: deviceClaimChanged, claim: "ns/x"}, true},
		"another claim":               {happening{what: deviceClaimChanged, claim: "ns/y"}, false},
		"one that was made for it":    {happening{what: deviceClaimChanged, owner: "p"}, true},
		"one for another":             {happening{what: deviceClaimChanged, owner: "q"}, false},
		"one of its name elsewhere":   {happening{what: deviceClaimChanged, claim: "other/x"}, false},
		"devices that became free":    {happening{what: deviceClaimChanged, claim: "ns/y", freed: true}, true},
		"its class":                   {happening{what: deviceClassChanged, class: aDeviceClass("c")}, true},
		"another class":               {happening{what: deviceClassChanged, class: aDeviceClass("d")}, false},
		"devices of a node it may":    {happening{what: deviceSliceChanged, node: w.byName["a"]}, true},
		"devices of one it may not":   {happening{what: deviceSliceChanged, node: w.byName["b"]}, false},
		"devices of many nodes":       {happening{what: deviceSliceChanged}, true},
		"a pod that is gone":          {happening{what: podGone, pod: p.class}, false},
		"a volume that somebody made": {happening{what: volumeChanged}, false},
	} {
		if got := w.mayHelp(p.class, by, c.e) && w.mayHelpPod(p, c.e); got != c.want {
			t.Errorf("%s: got %v", what, got)
		}
	}
}

// TestRelief: a claim that is where its pod cannot go is given back, unless others use it.
func TestRelief(t *testing.T) {
	for what, c := range map[string]struct {
		users []string
		said  string
	}{
		"nobody uses it": {nil, "deallocation of ResourceClaim completed"},
		"the pod itself": {[]string{"p"}, "deallocation of ResourceClaim completed"},
		"another":        {[]string{"q"}, "still not schedulable"},
	} {
		w := newWorld(1, nil)
		w.setNode(aNode("a", "y"))
		w.devices.setClaim(nil, aClaim("x", exactly("c", 1, ""), allocatedOn("b", "dev0"), func(rc *resourcev1.ResourceClaim) {
			for _, uid := range c.users {
				rc.Status.ReservedFor = append(rc.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: uid, UID: types.UID(uid)})
			}
		}))
		p := w.newPod(aPod("p", claiming("x"), func(p *corev1.Pod) { p.UID = "p" }))
		if r := w.decide(t.Context(), p, nil); r.node != nil || r.err != nil {
			t.Fatalf("%s: %+v", what, r)
		}
		if r := p.need.relief(p.obj); r.said != c.said || (r.claim != nil) != (c.said[0] == 'd') {
			t.Errorf("%s: got %+v", what, r)
		}
	}
}

// TestReadyToBind (KEP-5007).
func TestReadyToBind(t *testing.T) {
	now := time.Now()
	claim := func(allocated time.Time, conditions ...string) *resourcev1.ResourceClaim {
		c := aClaim("x", exactly("c", 1, ""), allocatedOn("b", "dev0"))
		c.Status.Allocation.AllocationTimestamp = &metav1.Time{Time: allocated}
		r := &c.Status.Allocation.Devices.Results[0]
		r.BindingConditions, r.BindingFailureConditions = []string{"ready", "cabled"}, []string{"dead"}
		s := resourcev1.AllocatedDeviceStatus{Driver: r.Driver, Pool: r.Pool, Device: r.Device}
		for _, name := range conditions {
			s.Conditions = append(s.Conditions, metav1.Condition{Type: name, Status: metav1.ConditionTrue})
		}
		c.Status.Devices = append(c.Status.Devices, s)
		return c
	}
	for what, c := range map[string]struct {
		claim              *resourcev1.ResourceClaim
		ready, fails, late bool
	}{
		"nothing yet":   {claim: claim(now)},
		"half":          {claim: claim(now, "ready")},
		"all":           {claim: claim(now, "ready", "cabled"), ready: true},
		"it failed":     {claim: claim(now, "ready", "dead"), fails: true},
		"it takes long": {claim: claim(now.Add(-time.Hour), "ready"), late: true},
		"no conditions": {claim: aClaim("x", exactly("c", 1, ""), allocatedOn("b", "dev0")), ready: true},
		"not allocated": {claim: aClaim("x", exactly("c", 1, ""))},
		"no status yet": {claim: func() *resourcev1.ResourceClaim { c := claim(now); c.Status.Devices = nil; return c }()},
		"late, no stamp": {claim: func() *resourcev1.ResourceClaim {
			c := claim(now)
			c.Status.Allocation.AllocationTimestamp = nil
			return c
		}()},
	} {
		ready, err := readyToBind(c.claim)
		if ready != c.ready || (err != nil) != c.fails || overdue(c.claim, 10*time.Minute, now) != c.late {
			t.Errorf("%s: got %v %v", what, ready, err)
		}
	}
}
