package owned

import corev1 "k8s.io/api/core/v1"

// Untolerated is the first of a node's taints with one of these effects that no
// toleration puts up with, nil if there is none.
func Untolerated(taints []corev1.Taint, tolerations []corev1.Toleration, effects ...corev1.TaintEffect) *corev1.Taint {
next:
	for i := range taints {
		t := &taints[i]
		for _, e := range effects {
			if t.Effect == e {
				for j := range tolerations {
					if tolerates(&tolerations[j], t) {
						continue next
					}
				}
				return t
			}
		}
	}
	return nil
}

func tolerates(tol *corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	return tol.Operator == corev1.TolerationOpExists || tol.Value == t.Value
}
