package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

const badFileMode = "must be a number between 0 and 0777 (octal), both inclusive"

// one sees to it that of several sources only one is given.
type one struct {
	e *validate.Errs
	n int
}

// ok is true for the first source; another one is reported, and not looked at.
func (o *one) ok(given bool, p *validate.Path) bool {
	if !given {
		return false
	}
	o.n++
	if o.n > 1 {
		o.n = 1
		o.e.Forbidden(p, "may not specify more than 1 volume type")
		return false
	}
	return true
}

// volumeSource checks a volume's source, in upstream's order.
func (c *specCheck) volumeSource(v *corev1.Volume, p *validate.Path) {
	e, s := c.e, &v.VolumeSource
	only := one{e: e}
	if s.EmptyDir != nil {
		only.n++
		if s.EmptyDir.SizeLimit != nil && s.EmptyDir.SizeLimit.Sign() < 0 {
			e.Forbidden(p.Child("emptyDir").Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
		}
	}
	if at := p.Child("hostPath"); only.ok(s.HostPath != nil, at) {
		hostPath(e, s.HostPath, at)
	}
	if only.ok(s.GitRepo != nil, p.Child("gitRepo")) {
		required(e, s.GitRepo.Repository, p.Child("gitRepo").Child("repository"))
		descending(e, s.GitRepo.Directory, p.Child("gitRepo").Child("directory"))
	}
	if only.ok(s.GCEPersistentDisk != nil, p.Child("gcePersistentDisk")) {
		gceDisk(e, s.GCEPersistentDisk, p.Child("persistentDisk"))
	}
	if at := p.Child("awsElasticBlockStore"); only.ok(s.AWSElasticBlockStore != nil, at) {
		awsDisk(e, s.AWSElasticBlockStore, at)
	}
	if at := p.Child("secret"); only.ok(s.Secret != nil, at) {
		required(e, s.Secret.SecretName, at.Child("secretName"))
		fileMode(e, s.Secret.DefaultMode, at.Child("defaultMode"))
		keysToPaths(e, s.Secret.Items, at.Child("items"))
	}
	if at := p.Child("nfs"); only.ok(s.NFS != nil, at) {
		nfs(e, s.NFS, at)
	}
	if at := p.Child("iscsi"); s.ISCSI != nil {
		if only.ok(true, at) {
			iscsi(e, s.ISCSI, at)
		}
		if s.ISCSI.InitiatorName != nil && len(v.Name)+1+len(s.ISCSI.TargetPortal) > 64 {
			e.Invalid(p.Child("name"), v.Name, iscsiTooLong)
		}
	}
	if at := p.Child("glusterfs"); only.ok(s.Glusterfs != nil, at) {
		required(e, s.Glusterfs.EndpointsName, at.Child("endpoints"))
		required(e, s.Glusterfs.Path, at.Child("path"))
	}
	if at := p.Child("flocker"); only.ok(s.Flocker != nil, at) {
		flocker(e, s.Flocker, at)
	}
	if at := p.Child("persistentVolumeClaim"); only.ok(s.PersistentVolumeClaim != nil, at) {
		required(e, s.PersistentVolumeClaim.ClaimName, at.Child("claimName"))
	}
	if at := p.Child("rbd"); only.ok(s.RBD != nil, at) {
		rbd(e, s.RBD.CephMonitors, s.RBD.RBDImage, at)
	}
	if at := p.Child("cinder"); only.ok(s.Cinder != nil, at) {
		required(e, s.Cinder.VolumeID, at.Child("volumeID"))
		localSecret(e, s.Cinder.SecretRef, at.Child("secretRef"))
	}
	if only.ok(s.CephFS != nil, p.Child("cephFS")) && len(s.CephFS.Monitors) == 0 {
		e.Required(p.Child("cephfs").Child("monitors"), "")
	}
	if at := p.Child("quobyte"); only.ok(s.Quobyte != nil, at) {
		quobyte(e, s.Quobyte, at)
	}
	if only.ok(s.DownwardAPI != nil, p.Child("downwarAPI")) {
		at := p.Child("downwardAPI")
		fileMode(e, s.DownwardAPI.DefaultMode, at.Child("defaultMode"))
		for i := range s.DownwardAPI.Items {
			downwardFile(e, &s.DownwardAPI.Items[i], at)
		}
	}
	if at := p.Child("fc"); only.ok(s.FC != nil, at) {
		fibreChannel(e, s.FC, at)
	}
	if at := p.Child("flexVolume"); only.ok(s.FlexVolume != nil, at) {
		flexVolume(e, s.FlexVolume.Driver, s.FlexVolume.Options, at)
	}
	if at := p.Child("configMap"); only.ok(s.ConfigMap != nil, at) {
		required(e, s.ConfigMap.Name, at.Child("name"))
		fileMode(e, s.ConfigMap.DefaultMode, at.Child("defaultMode"))
		keysToPaths(e, s.ConfigMap.Items, at.Child("items"))
	}
	if at := p.Child("azureFile"); only.ok(s.AzureFile != nil, at) {
		required(e, s.AzureFile.SecretName, at.Child("secretName"))
		required(e, s.AzureFile.ShareName, at.Child("shareName"))
	}
	if at := p.Child("vsphereVolume"); only.ok(s.VsphereVolume != nil, at) {
		required(e, s.VsphereVolume.VolumePath, at.Child("volumePath"))
	}
	if at := p.Child("photonPersistentDisk"); only.ok(s.PhotonPersistentDisk != nil, at) {
		required(e, s.PhotonPersistentDisk.PdID, at.Child("pdID"))
	}
	if at := p.Child("portworxVolume"); only.ok(s.PortworxVolume != nil, at) {
		required(e, s.PortworxVolume.VolumeID, at.Child("volumeID"))
	}
	if at := p.Child("azureDisk"); only.ok(s.AzureDisk != nil, at) {
		azureDisk(e, s.AzureDisk, at)
	}
	if at := p.Child("storageos"); only.ok(s.StorageOS != nil, at) {
		storageOS(e, s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at)
		localSecret(e, s.StorageOS.SecretRef, at.Child("secretRef"))
	}
	if at := p.Child("projected"); only.ok(s.Projected != nil, at) {
		fileMode(e, s.Projected.DefaultMode, at.Child("defaultMode"))
		c.projections(s.Projected, at)
	}
	if at := p.Child("scaleIO"); only.ok(s.ScaleIO != nil, at) {
		scaleIO(e, s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at)
	}
	if at := p.Child("csi"); only.ok(s.CSI != nil, at) {
		csiDriver(e, s.CSI.Driver, at.Child("driver"))
		if ref := s.CSI.NodePublishSecretRef; ref != nil {
			if ref.Name == "" {
				e.Required(at.Child("nodePublishSecretRef").Child("name"), "")
			} else {
				requiredSubdomain(e, ref.Name, at.Child("name"))
			}
		}
	}
	if at := p.Child("ephemeral"); only.ok(s.Ephemeral != nil, at) {
		c.ephemeralVolume(v, at, p)
	}
	if at := p.Child("image"); only.ok(s.Image != nil, at) {
		if c.pod && s.Image.Reference == "" {
			e.Required(at.Child("reference"), "")
		}
		pullPolicies(e, s.Image.PullPolicy, at.Child("pullPolicy"))
	}
	if only.n == 0 {
		e.Required(p, "must specify a volume type")
	}
}

func (c *specCheck) ephemeralVolume(v *corev1.Volume, at, p *validate.Path) {
	t := v.Ephemeral.VolumeClaimTemplate
	at = at.Child("volumeClaimTemplate")
	if t == nil {
		c.e.Required(at, "")
	} else {
		templateMeta(c.e, &t.ObjectMeta, at.Child("metadata"))
		claimSpec(c.e, &t.Spec, nil, at.Child("spec"))
	}
	if c.meta != nil && c.meta.Name != "" && v.Name != "" {
		name := c.meta.Name + "-" + v.Name
		for _, why := range validate.Subdomain(name) {
			c.e.Invalid(p.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", name, why))
		}
	}
}

// templateMeta: only labels and annotations may be given.
func templateMeta(e *validate.Errs, m *metav1.ObjectMeta, p *validate.Path) {
	validate.Annotations(e, m.Annotations, p.Child("annotations"))
	validate.Labels(e, m.Labels, p.Child("labels"))
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"name", m.Name != ""}, {"generateName", m.GenerateName != ""}, {"namespace", m.Namespace != ""},
		{"selfLink", m.SelfLink != ""}, {"uID", m.UID != ""}, {"resourceVersion", m.ResourceVersion != ""},
		{"generation", m.Generation != 0}, {"creationTimestamp", !m.CreationTimestamp.IsZero()},
		{"deletionTimestamp", m.DeletionTimestamp != nil}, {"deletionGracePeriodSeconds", m.DeletionGracePeriodSeconds != nil},
		{"ownerReferences", m.OwnerReferences != nil}, {"finalizers", m.Finalizers != nil}, {"managedFields", m.ManagedFields != nil},
	} {
		if f.set {
			e.Forbidden(p.Child(f.name), "cannot be set")
		}
	}
}

func required(e *validate.Errs, s string, p *validate.Path) {
	if s == "" {
		e.Required(p, "")
	}
}

func localSecret(e *validate.Errs, ref *corev1.LocalObjectReference, p *validate.Path) {
	if ref != nil {
		required(e, ref.Name, p.Child("name"))
	}
}

func fileMode(e *validate.Errs, mode *int32, p *validate.Path) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		e.Invalid(p, *mode, badFileMode)
	}
}

func keysToPaths(e *validate.Errs, items []corev1.KeyToPath, p *validate.Path) {
	for i := range items {
		keyToPath(e, &items[i], p.Index(i))
	}
}

func keyToPath(e *validate.Errs, k *corev1.KeyToPath, p *validate.Path) {
	required(e, k.Key, p.Child("key"))
	required(e, k.Path, p.Child("path"))
	localPath(e, k.Path, p.Child("path"))
	fileMode(e, k.Mode, p.Child("mode"))
}

func downwardFile(e *validate.Errs, f *corev1.DownwardAPIVolumeFile, p *validate.Path) {
	required(e, f.Path, p.Child("path"))
	localPath(e, f.Path, p.Child("path"))
	switch {
	case f.FieldRef != nil:
		fieldRef(e, f.FieldRef, volumeFields, p.Child("fieldRef"))
		if f.ResourceFieldRef != nil {
			e.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case f.ResourceFieldRef != nil:
		resourceFieldRef(e, f.ResourceFieldRef, true, p.Child("resourceFieldRef"))
	default:
		e.Required(p, "one of fieldRef and resourceFieldRef is required")
	}
	fileMode(e, f.Mode, p.Child("mode"))
}

// projections checks the sources of a projected volume. Cluster trust bundles
// and pod certificates are off in v1.36 and were emptied by Reset.
func (c *specCheck) projections(v *corev1.ProjectedVolumeSource, p *validate.Path) {
	e := c.e
	var paths seen[string]
	unique := func(path string, named string) {
		if path != "" && !paths.add(path) {
			e.Invalid(p, named, "conflicting duplicate paths")
		}
	}
	for i := range v.Sources {
		s, at, n := &v.Sources[i], p.Child("sources").Index(i), 0
		if s.Secret != nil {
			n++
			required(e, s.Secret.Name, at.Child("secret").Child("name"))
			for j := range s.Secret.Items {
				keyToPath(e, &s.Secret.Items[j], at.Child("secret").Child("items").Index(j))
				unique(s.Secret.Items[j].Path, s.Secret.Name)
			}
		}
		if s.ConfigMap != nil {
			n++
			required(e, s.ConfigMap.Name, at.Child("configMap").Child("name"))
			for j := range s.ConfigMap.Items {
				keyToPath(e, &s.ConfigMap.Items[j], at.Child("configMap").Child("items").Index(j))
				unique(s.ConfigMap.Items[j].Path, s.ConfigMap.Name)
			}
		}
		if s.DownwardAPI != nil {
			n++
			for j := range s.DownwardAPI.Items {
				downwardFile(e, &s.DownwardAPI.Items[j], at.Child("downwardAPI"))
				unique(s.DownwardAPI.Items[j].Path, s.DownwardAPI.Items[j].Path)
			}
		}
		if t := s.ServiceAccountToken; t != nil {
			n++
			c.projectedToken(t, p, at.Child("serviceAccountToken"))
		}
		if n > 1 {
			e.Forbidden(at, "may not specify more than 1 volume type per source")
		}
	}
}

func (c *specCheck) projectedToken(t *corev1.ServiceAccountTokenProjection, volume, p *validate.Path) {
	e := c.e
	var seconds int64
	if t.ExpirationSeconds != nil {
		seconds = *t.ExpirationSeconds
	}
	if seconds < 10*60 {
		e.Invalid(p.Child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes")
	}
	if seconds > 1<<32 {
		e.Invalid(p.Child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds")
	}
	if c.pod && c.spec.ServiceAccountName == "" {
		e.Forbidden(p, "must not be specified when serviceAccountName is not set")
	}
	if t.Path == "" {
		e.Required(volume.Child("path"), "")
		return
	}
	var found validate.Errs
	localPath(&found, t.Path, volume.Child("path"))
	if found.Len() > 0 && !tokenPathOutside(c.old) {
		e.Add(found.List()...)
	}
}

func tokenPathOutside(s *corev1.PodSpec) bool {
	if s == nil {
		return false
	}
	for i := range s.Volumes {
		if s.Volumes[i].Projected == nil {
			continue
		}
		for _, src := range s.Volumes[i].Projected.Sources {
			var e validate.Errs
			if src.ServiceAccountToken != nil {
				localPath(&e, src.ServiceAccountToken.Path, nil)
			}
			if e.Len() > 0 {
				return true
			}
		}
	}
	return false
}
