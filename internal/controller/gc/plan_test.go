package gc

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestJudge(t *testing.T) {
	foreground, background, orphan := metav1.DeletePropagationForeground, metav1.DeletePropagationBackground, metav1.DeletePropagationOrphan
	for what, c := range map[string]struct {
		owners     []owner
		finalizers []string
		deleted    bool
		block      bool
		delete     metav1.DeletionPropagation // "" = it stays
		drop       int
	}{
		"of nobody":                                {nil, nil, false, false, "", 0},
		"its owner stays":                          {[]owner{present}, nil, false, false, "", 0},
		"its owner is gone":                        {[]owner{absent}, nil, false, false, background, 0},
		"one of two is gone":                       {[]owner{absent, present}, nil, false, false, "", 1},
		"both are gone":                            {[]owner{absent, absent}, nil, false, false, background, 0},
		"one waits, the other stays":               {[]owner{waiting, present}, nil, false, true, "", 1},
		"its owner waits":                          {[]owner{waiting}, nil, false, false, background, 0},
		"its owner waits, as does somebody for it": {[]owner{waiting}, nil, false, true, foreground, 0},
		"one of two cannot be told":                {[]owner{absent, unknown}, nil, false, false, "", 0},
		"it wants to orphan":                       {[]owner{absent}, []string{metav1.FinalizerOrphanDependents}, false, false, orphan, 0},
		"it wants to go last":                      {[]owner{absent}, []string{metav1.FinalizerDeleteDependents}, false, false, foreground, 0},
		"it goes already":                          {[]owner{absent}, nil, true, false, "", 0},
		"it goes last, one owner stays":            {[]owner{absent, present}, []string{metav1.FinalizerDeleteDependents}, true, false, "", 1},
	} {
		obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Finalizers: c.finalizers}}
		if c.deleted {
			obj.DeletionTimestamp = ptr.To(metav1.Now())
		}
		owners := map[types.UID]owner{}
		for i, o := range c.owners {
			uid := types.UID(rune('a' + i))
			obj.OwnerReferences = append(obj.OwnerReferences, metav1.OwnerReference{UID: uid})
			owners[uid] = o
		}
		v := judge(obj, owners, c.block)
		if v.delete != (c.delete != "") || v.policy != c.delete || len(v.drop) != c.drop || slices.ContainsFunc(v.drop, func(id types.UID) bool { return owners[id] == present }) {
			t.Errorf("%s: %+v", what, v)
		}
	}
}
