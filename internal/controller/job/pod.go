package job

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/controller/owned"
)

var gvk = batchv1.SchemeGroupVersion.WithKind("Job")

const indexVariable = "JOB_COMPLETION_INDEX"

// podFor a job, of an index (-1 = none) that a pod has failed for before (nil = none).
func podFor(j *batchv1.Job, index int, before *corev1.Pod) *corev1.Pod {
	p := owned.FromTemplate(&j.Spec.Template, j.Name, j.Namespace, owned.Ref(j, gvk))
	if !tracked(p) {
		p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if index < 0 {
		return p
	}
	text := strconv.Itoa(index)
	tail := "-" + text + "-"
	p.GenerateName = j.Name[:min(len(j.Name), 253-5-len(tail))] + tail
	p.Spec.Hostname = fmt.Sprintf("%s-%d", j.Name, index)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Annotations[batchv1.JobCompletionIndexAnnotation], p.Labels[batchv1.JobCompletionIndexAnnotation] = text, text
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if !slices.ContainsFunc(list[i].Env, func(e corev1.EnvVar) bool { return e.Name == indexVariable }) {
				list[i].Env = append(list[i].Env, corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{
					FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']"},
				}})
			}
		}
	}
	if j.Spec.BackoffLimitPerIndex != nil {
		counted, ignored := 0, 0
		if before != nil {
			all := 0
			counted, all = failuresOf(before)
			ignored = all - counted
			if judgeFailure(j, before).counts {
				counted++
			} else {
				ignored++
			}
		}
		p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(counted)
		if ignored > 0 {
			p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
		}
	}
	return p
}
