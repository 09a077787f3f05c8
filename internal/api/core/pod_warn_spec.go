package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-dev/proa/internal/api/validate"
)

// oldNodeLabel is what to use instead of a node label that has been renamed.
func oldNodeLabel(name string) string {
	switch name {
	case "beta.kubernetes.io/os":
		return `deprecated since v1.14; use "kubernetes.io/os" instead`
	case "beta.kubernetes.io/arch":
		return `deprecated since v1.14; use "kubernetes.io/arch" instead`
	case corev1.LabelFailureDomainBetaZone:
		return `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`
	case corev1.LabelFailureDomainBetaRegion:
		return `deprecated since v1.17; use "topology.kubernetes.io/region" instead`
	case corev1.LabelInstanceType:
		return `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`
	case "app.kubernetes.io/created-by":
		return "deprecated since v1.9"
	case "scheduler.alpha.kubernetes.io/preferAvoidPods":
		return "deprecated since v1.22; use Taints and Tolerations instead"
	case "node-role.kubernetes.io/master":
		return `use "node-role.kubernetes.io/control-plane" instead`
	}
	return ""
}

func (w *warner) scheduling(p *field.Path, s *corev1.PodSpec) {
	for k := range s.NodeSelector {
		if why := oldNodeLabel(k); why != "" {
			w.addf("%s: %s", below(p, "spec", "nodeSelector").Key(k), why)
		}
	}
	if s.Affinity != nil && s.Affinity.NodeAffinity != nil {
		n := s.Affinity.NodeAffinity
		at := below(p, "spec", "affinity", "nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i := range r.NodeSelectorTerms {
				w.nodeTerm(&r.NodeSelectorTerms[i], false, at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i))
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			w.nodeTerm(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, true, at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))
		}
	}
	for i := range s.TopologySpreadConstraints {
		t := &s.TopologySpreadConstraints[i]
		at := below(p, "spec", "topologySpreadConstraints").Index(i)
		if why := oldNodeLabel(t.TopologyKey); why != "" {
			w.addf("%s: %s is %s", at.Child("topologyKey"), t.TopologyKey, why)
		}
		if t.LabelSelector == nil {
			w.addf("%s: a null labelSelector results in matching no pod", at.Child("labelSelector"))
		}
	}
}

// nodeTerm warns of a preference that no node can meet, too: it is not refused.
func (w *warner) nodeTerm(t *corev1.NodeSelectorTerm, values bool, p *field.Path) {
	for i, r := range t.MatchExpressions {
		at := p.Child("matchExpressions").Index(i)
		if why := oldNodeLabel(r.Key); why != "" {
			w.addf("%s: %s is %s", at.Child("key"), r.Key, why)
		}
		for j, v := range r.Values {
			if !values {
				break
			}
			for _, why := range validate.LabelValue(v) {
				w.addf("%s: %s is invalid, %s", at.Child("values").Index(j), v, why)
			}
		}
	}
}

func (w *warner) podAffinity(p *field.Path, s *corev1.PodSpec) {
	if s.Affinity == nil {
		return
	}
	const must, want = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	terms := func(name string, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		at := below(p, "spec", "affinity", name)
		for i := range required {
			if required[i].LabelSelector == nil {
				w.addf("%s: a null labelSelector results in matching no pod", at.Child(must).Index(i).Child("labelSelector"))
			}
		}
		for i := range preferred {
			if preferred[i].PodAffinityTerm.LabelSelector == nil {
				w.addf("%s: a null labelSelector results in matching no pod", at.Child(want).Index(i).Child("podAffinityTerm", "labelSelector"))
			}
		}
	}
	if a := s.Affinity.PodAffinity; a != nil {
		terms("podAffinity", a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := s.Affinity.PodAntiAffinity; a != nil {
		terms("podAntiAffinity", a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func (w *warner) volume(p *field.Path, i int, v *corev1.Volume) {
	warn := func(given bool, name, why string) {
		if given {
			w.addf("%s: %s", below(p, "spec", "volumes").Index(i).Child(name), why)
		}
	}
	const gone22, gone25 = "deprecated in v1.16, non-functional in v1.22+", "deprecated in v1.22, non-functional in v1.25+"
	const gone31 = "deprecated in v1.28, non-functional in v1.31+"
	warn(v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+")
	warn(v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+")
	warn(v.ScaleIO != nil, "scaleIO", gone22)
	warn(v.Flocker != nil, "flocker", gone25)
	warn(v.StorageOS != nil, "storageOS", gone25)
	warn(v.Quobyte != nil, "quobyte", gone25)
	warn(v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+")
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		w.claim(below(p, "spec", "volumes").Index(i).Child("ephemeral", "volumeClaimTemplate", "spec"), &v.Ephemeral.VolumeClaimTemplate.Spec)
	}
	warn(v.CephFS != nil, "cephfs", gone31)
	warn(v.RBD != nil, "rbd", gone31)
}

func (w *warner) claim(p *field.Path, s *corev1.PersistentVolumeClaimSpec) {
	w.storage(p.Child("resources").Child("requests"), s.Resources.Requests)
	w.storage(p.Child("resources").Child("limits"), s.Resources.Limits)
}

func (w *warner) storage(p *field.Path, list corev1.ResourceList) {
	if q, ok := list[corev1.ResourceStorage]; ok && isFraction(q) {
		w.addf("%s: fractional byte value %q is invalid, must be an integer", p.Key(string(corev1.ResourceStorage)), q.String())
	}
}

// file is a path that a volume's source makes, and the source if there are several.
type file struct{ path, source string }

func (f file) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// overlaps warns of files of one volume that lie in each other's way.
func (w *warner) overlaps(volumes []corev1.Volume) {
	for i := range volumes {
		v := &volumes[i]
		if c := v.ConfigMap; c != nil {
			w.inEachOther(v.Name, fmt.Sprintf("ConfigMap %q", c.Name), keyFiles(c.Items, ""))
		}
		if s := v.Secret; s != nil {
			w.inEachOther(v.Name, fmt.Sprintf("Secret %q", s.SecretName), keyFiles(s.Items, ""))
		}
		if d := v.DownwardAPI; d != nil {
			w.inEachOther(v.Name, "DownwardAPI", downwardFiles(d.Items, ""))
		}
		if v.Projected == nil {
			continue
		}
		var all []file
		for _, s := range v.Projected.Sources {
			switch {
			case s.ConfigMap != nil && s.ConfigMap.Items != nil:
				all = append(all, keyFiles(s.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name))...)
			case s.Secret != nil && s.Secret.Items != nil:
				all = append(all, keyFiles(s.Secret.Items, fmt.Sprintf("Secret %q", s.Secret.Name))...)
			case s.DownwardAPI != nil && s.DownwardAPI.Items != nil:
				all = append(all, downwardFiles(s.DownwardAPI.Items, "DownwardAPI")...)
			case s.ServiceAccountToken != nil:
				all = append(all, file{s.ServiceAccountToken.Path, "ServiceAccountToken"})
			case s == (corev1.VolumeProjection{}):
				w.addf("volume %q (Projected) has no sources provided", v.Name)
			}
		}
		w.inEachOther(v.Name, "Projected", all)
	}
}

func keyFiles(items []corev1.KeyToPath, source string) []file {
	files := make([]file, len(items))
	for i := range items {
		files[i] = file{items[i].Path, source}
	}
	return files
}

func downwardFiles(items []corev1.DownwardAPIVolumeFile, source string) []file {
	files := make([]file, len(items))
	for i := range items {
		files[i] = file{items[i].Path, source}
	}
	return files
}

// mostFiles bounds the comparison of each with each: an object can hold very
// many, and a warning is not worth a minute.
const mostFiles = 1000

func (w *warner) inEachOther(volume, kind string, files []file) {
	if len(files) > mostFiles {
		return
	}
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, other := range files[:i] {
			a, b := files[i].path+"/", other.path+"/"
			if a != "/" && b != "/" && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a)) {
				w.addf("volume %q (%s): overlapping paths: %s with %s", volume, kind, files[i], other)
			}
		}
	}
}
