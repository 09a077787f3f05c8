package attach

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestKeys(t *testing.T) {
	d := disk{Driver: "hostpath.csi.k8s.io", Handle: "vol-1"}
	if got := diskKeyed(keyOf(d)); got != d {
		t.Error(got)
	}
}

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	pod := func(namespace, name string, age time.Duration) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age))}}
	}
	there := &storagev1.VolumeAttachment{}
	going := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: now}}}
	type attachments = map[string]*storagev1.VolumeAttachment
	type pods = map[string][]*corev1.Pod
	type nodes = map[string]node
	a, b, other := pod("x", "a", 2*time.Hour), pod("x", "b", time.Hour), pod("y", "o", time.Hour)
	for what, c := range map[string]struct {
		s    state
		want []string
	}{
		"nothing":                               {},
		"a pod needs it":                        {state{pods: pods{"n1": {a}}}, []string{"attach n1"}},
		"it is there":                           {state{pods: pods{"n1": {a}}, attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true}}}, nil},
		"two want it, one may have it":          {state{pods: pods{"n1": {b}, "n2": {a}}}, []string{"attach n2", `refuse n1: Multi-Attach error for volume "v" Volume is already exclusively attached to one node and can't be attached to another`}},
		"two want it and may have it":           {state{shared: true, pods: pods{"n1": {b}, "n2": {a}}}, []string{"attach n2", "attach n1"}},
		"another has it":                        {state{pods: pods{"n1": {b}, "n2": {a}}, attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true}}}, []string{`refuse n2: Multi-Attach error for volume "v" Volume is already used by pod(s) b`}},
		"others of other namespaces have it":    {state{pods: pods{"n1": {b, other}, "n2": {a}}, attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true}}}, []string{`refuse n2: Multi-Attach error for volume "v" Volume is already used by pod(s) b and 1 pod(s) in different namespaces`}},
		"one of another namespace has it":       {state{pods: pods{"n1": {other}, "n2": {a}}, attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true}}}, []string{`refuse n2: Multi-Attach error for volume "v" Volume is already used by 1 pod(s) in different namespaces`}},
		"it goes from one to the other":         {state{pods: pods{"n2": {a}}, attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true, reported: true}}}, []string{"unreport n1", `refuse n2: Multi-Attach error for volume "v" Volume is already exclusively attached to one node and can't be attached to another`}},
		"it is going from one to the other":     {state{pods: pods{"n2": {a}}, attached: attachments{"n1": going}, nodes: nodes{"n1": {ready: true}}}, []string{`refuse n2: Multi-Attach error for volume "v" Volume is already exclusively attached to one node and can't be attached to another`}},
		"it is needed again while it is going":  {state{pods: pods{"n1": {a}}, attached: attachments{"n1": going}, nodes: nodes{"n1": {ready: true}}}, []string{`refuse n1: AttachVolume.Attach failed for volume "v" : volume attachment is being deleted`}},
		"the node knows that it is going":       {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true}}}, []string{"detach n1"}},
		"the node uses it":                      {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true, uses: true, reported: true}}}, nil},
		"a node that is not ready used it":      {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {uses: true}}, unneeded: map[string]time.Time{"n1": now.Add(-time.Minute)}}, []string{"wait n1 5m0s"}},
		"… for long":                            {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {uses: true, reported: true}}, unneeded: map[string]time.Time{"n1": now.Add(-patience)}}, []string{"unreport n1"}},
		"a ready node uses it for long":         {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {ready: true, uses: true}}, unneeded: map[string]time.Time{"n1": now.Add(-patience)}}, nil},
		"the node is out of service":            {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {uses: true, outOfService: true}}, unneeded: map[string]time.Time{"n1": now}}, []string{"detach n1"}},
		"the node is gone, who knows what from": {state{attached: attachments{"n1": there}, unneeded: map[string]time.Time{"n1": now}}, []string{"wait n1 6m0s"}},
		"the node is gone, and did not use it":  {state{attached: attachments{"n1": there}, nodes: nodes{"n1": {}}, unneeded: map[string]time.Time{"n1": now}}, []string{"detach n1"}},
		"the node is gone for long":             {state{attached: attachments{"n1": there}, unneeded: map[string]time.Time{"n1": now.Add(-patience)}}, []string{"detach n1"}},
		"it is told only once that it is going": {state{attached: attachments{"n1": going}, nodes: nodes{"n1": {ready: true, reported: true}}}, nil},
	} {
		c.s.volume = "v"
		var got []string
		for _, one := range decide(&c.s, now) {
			switch one.verb {
			case attach, unreport, detach:
				got = append(got, [...]string{attach: "attach", unreport: "unreport", detach: "detach"}[one.verb]+" "+one.node)
			case refuse:
				got = append(got, "refuse "+one.node+": "+one.why(pod("x", "p", 0)))
			case wait:
				got = append(got, fmt.Sprint("wait ", one.node, " ", one.at.Sub(now)))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%q, not\n%q", what, got, c.want)
		}
	}
}

func TestNeeds(t *testing.T) {
	on := corev1.PodSpec{NodeName: "n"}
	ends := metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}
	runs := []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	ended := []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
	for what, c := range map[string]struct {
		p    corev1.Pod
		want bool
	}{
		"it has no node":          {corev1.Pod{}, false},
		"it has one":              {corev1.Pod{Spec: on}, true},
		"it succeeded":            {corev1.Pod{Spec: on, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, false},
		"it failed":               {corev1.Pod{Spec: on, Status: corev1.PodStatus{Phase: corev1.PodFailed}}, false},
		"it ends, but runs still": {corev1.Pod{ObjectMeta: ends, Spec: on, Status: corev1.PodStatus{ContainerStatuses: runs}}, true},
		"it ends, nothing runs":   {corev1.Pod{ObjectMeta: ends, Spec: on, Status: corev1.PodStatus{ContainerStatuses: ended}}, false},
		"it ends and never ran":   {corev1.Pod{ObjectMeta: ends, Spec: on}, false},
	} {
		if got := needs(&c.p); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
