package csi

import (
	"fmt"
	"path/filepath"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/kubelet/plugin"
)

func sized(size string) v1.ResourceList {
	if size == "" {
		return nil
	}
	return v1.ResourceList{v1.ResourceStorage: resource.MustParse(size)}
}

func TestPlanGrowth(t *testing.T) {
	for name, c := range map[string]struct {
		claim, allocated, volume, known string
		status                          v1.ClaimResourceStatus
		mode                            v1.PersistentVolumeAccessMode
		annotation                      string
		call, told                      bool
		size                            string
	}{
		"as it is":                        {claim: "1Gi", volume: "1Gi", size: "1Gi"},
		"older resizer":                   {claim: "1Gi", volume: "2Gi", call: true, size: "2Gi"},
		"older resizer, done elsewhere":   {claim: "2Gi", volume: "2Gi", known: "1Gi", size: "2Gi"},
		"pending":                         {claim: "1Gi", volume: "2Gi", allocated: "2Gi", status: v1.PersistentVolumeClaimNodeResizePending, call: true, size: "2Gi"},
		"begun before":                    {claim: "1Gi", volume: "2Gi", allocated: "2Gi", status: v1.PersistentVolumeClaimNodeResizeInProgress, call: true, size: "2Gi"},
		"still the controller's":          {claim: "1Gi", volume: "2Gi", allocated: "2Gi", status: v1.PersistentVolumeClaimControllerResizeInProgress, size: "1Gi"},
		"infeasible":                      {claim: "1Gi", volume: "2Gi", allocated: "2Gi", status: v1.PersistentVolumeClaimNodeResizeInfeasible, size: "1Gi"},
		"done without the node":           {claim: "2Gi", volume: "2Gi", allocated: "2Gi", known: "1Gi", told: true, size: "2Gi"},
		"shared, each node for itself":    {claim: "2Gi", volume: "2Gi", allocated: "2Gi", known: "1Gi", mode: v1.ReadWriteMany, call: true, told: true, size: "2Gi"},
		"shared, not required":            {claim: "2Gi", volume: "2Gi", allocated: "2Gi", known: "1Gi", mode: v1.ReadWriteMany, annotation: notRequired, told: true, size: "2Gi"},
		"the claim says nothing of sizes": {volume: "2Gi", size: "0"},
	} {
		claim := &v1.PersistentVolumeClaim{Spec: v1.PersistentVolumeClaimSpec{AccessModes: []v1.PersistentVolumeAccessMode{c.mode}},
			Status: v1.PersistentVolumeClaimStatus{Capacity: sized(c.claim), AllocatedResources: sized(c.allocated)}}
		if c.status != "" {
			setResize(claim, c.status)
		}
		if c.annotation != "" {
			claim.Annotations = map[string]string{c.annotation: "true"}
		}
		var known resource.Quantity
		if c.known != "" {
			known = resource.MustParse(c.known)
		}
		got := planGrowth(claim, &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{Capacity: sized(c.volume)}}, known)
		if got.call != c.call || got.told != c.told || got.size.Cmp(resource.MustParse(c.size)) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestGroupApplies(t *testing.T) {
	pv := func(fs string, mode v1.PersistentVolumeAccessMode) *v1.PersistentVolume {
		return &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{AccessModes: []v1.PersistentVolumeAccessMode{mode},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{FSType: fs}}}}
	}
	with := func(p storagev1.FSGroupPolicy) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{FSGroupPolicy: &p}}
	}
	for name, c := range map[string]struct {
		t    target
		want bool
	}{
		"a file system of one node":         {target{Volume: Volume{PV: pv("ext4", v1.ReadWriteOnce)}}, true},
		"of one pod":                        {target{Volume: Volume{PV: pv("ext4", v1.ReadWriteOncePod)}}, true},
		"of many nodes":                     {target{Volume: Volume{PV: pv("nfs", v1.ReadWriteMany)}}, false},
		"no file system type":               {target{Volume: Volume{PV: pv("", v1.ReadWriteOnce)}}, false},
		"always":                            {target{Volume: Volume{PV: pv("", v1.ReadWriteMany)}, object: with(storagev1.FileFSGroupPolicy)}, true},
		"never":                             {target{Volume: Volume{PV: pv("ext4", v1.ReadWriteOnce)}, object: with(storagev1.NoneFSGroupPolicy)}, false},
		"read only":                         {target{Volume: Volume{PV: pv("ext4", v1.ReadWriteOnce), ReadOnly: true}}, false},
		"inline":                            {target{Volume: Volume{Inline: &v1.CSIVolumeSource{FSType: ptr.To("ext4")}}}, true},
		"inline without a file system type": {target{Volume: Volume{Inline: &v1.CSIVolumeSource{}}}, false},
	} {
		if got := c.t.groupApplies(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNodePatch(t *testing.T) {
	node := func(ids string, labels map[string]string) *v1.Node {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
		if ids != "" {
			n.Annotations = map[string]string{nodeIDs: ids}
		}
		return n
	}
	a := &nodeInfo{driver: "a", id: "1", topology: map[string]string{"zone": "z"}}
	for name, c := range map[string]struct {
		node *v1.Node
		info *nodeInfo
		want string
		bad  bool
	}{
		"the first":         {node("", nil), a, `{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"a\":\"1\"}"},"labels":{"zone":"z"}}}`, false},
		"one more":          {node(`{"b":"2"}`, map[string]string{"zone": "z"}), a, `{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"a\":\"1\",\"b\":\"2\"}"}}}`, false},
		"known":             {node(`{"a":"1"}`, map[string]string{"zone": "z"}), a, "", false},
		"another zone":      {node("", map[string]string{"zone": "y"}), a, "", true},
		"the last goes":     {node(`{"a":"1"}`, map[string]string{"zone": "z"}), nil, `{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":null}}}`, false},
		"one goes":          {node(`{"a":"1","b":"2"}`, nil), nil, `{"metadata":{"annotations":{"csi.volume.kubernetes.io/nodeid":"{\"b\":\"2\"}"}}}`, false},
		"it was not there":  {node(`{"b":"2"}`, nil), nil, "", false},
		"somebody's words":  {node(`what`, nil), a, "", true},
		"somebody's number": {node(`3`, nil), nil, "", true},
	} {
		got, err := nodePatch(c.node, "a", c.info)
		if string(got) != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		versions []string
		good     bool
	}{{nil, false}, {[]string{"0.3.0"}, false}, {[]string{"2.0.0"}, false}, {[]string{"1.0.0"}, true}, {[]string{"v1.9.0", "2.0.0"}, true}} {
		if err := (&Manager{}).Validate(plugin.Info{Name: "d", Versions: c.versions}); (err == nil) != c.good {
			t.Errorf("%v: %v", c.versions, err)
		}
	}
}

// TestLeftOver volumes that no pod uses are seen to when the kubelet comes, many at
// once: of those that were never staged only the records have to go.
func TestLeftOver(t *testing.T) {
	root := plugin.Root(t.TempDir())
	for i := range 100 {
		id := volumeID{Driver: "d", Handle: fmt.Sprint(i)}
		if err := (record{Handle: id.Handle, Driver: id.Driver}).write(staged(root, id)); err != nil {
			t.Fatal(err)
		}
	}
	gone := make(chan struct{}, 100)
	m := New(t.Context(), Config{Root: root, Used: func() { gone <- struct{}{} }})
	for range 100 {
		<-gone
	}
	if used := m.InUse(); len(used) > 0 || len(m.volumes) > 0 {
		t.Errorf("%v are in use, %d volumes are known", used, len(m.volumes))
	}
	if left, _ := filepath.Glob(root.Join("plugins/kubernetes.io/csi/d/*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestAccessMode(t *testing.T) {
	for mode, want := range map[v1.PersistentVolumeAccessMode][2]spec.VolumeCapability_AccessMode_Mode{
		v1.ReadWriteOnce:    {spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		v1.ReadWriteOncePod: {spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER},
		v1.ReadOnlyMany:     {spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY},
		v1.ReadWriteMany:    {spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
	} {
		if a, b := accessMode(mode, false), accessMode(mode, true); a != want[0] || b != want[1] {
			t.Errorf("%s: %v %v", mode, a, b)
		}
	}
}
