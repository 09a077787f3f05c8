package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/validate"
)

// volumeDisk checks where a persistent volume lies, in upstream's order.
func volumeDisk(e *validate.Errs, s *corev1.PersistentVolumeSpec, name string, p *validate.Path) {
	only := one{e: e}
	if at := p.Child("hostPath"); only.ok(s.HostPath != nil, at) {
		hostPath(e, s.HostPath, at)
	}
	if only.ok(s.GCEPersistentDisk != nil, p.Child("gcePersistentDisk")) {
		gceDisk(e, s.GCEPersistentDisk, p.Child("persistentDisk"))
	}
	if at := p.Child("awsElasticBlockStore"); only.ok(s.AWSElasticBlockStore != nil, at) {
		awsDisk(e, s.AWSElasticBlockStore, at)
	}
	if at := p.Child("glusterfs"); only.ok(s.Glusterfs != nil, at) {
		required(e, s.Glusterfs.EndpointsName, at.Child("endpoints"))
		required(e, s.Glusterfs.Path, at.Child("path"))
		if ns := s.Glusterfs.EndpointsNamespace; ns != nil && *ns == "" {
			e.Invalid(at.Child("endpointsNamespace"), "", "if the endpointnamespace is set, it must be a valid namespace name")
		} else if ns != nil {
			label(e, *ns, at.Child("endpointsNamespace"))
		}
	}
	if at := p.Child("flocker"); only.ok(s.Flocker != nil, at) {
		flocker(e, s.Flocker, at)
	}
	if at := p.Child("nfs"); only.ok(s.NFS != nil, at) {
		nfs(e, s.NFS, at)
	}
	if at := p.Child("rbd"); only.ok(s.RBD != nil, at) {
		rbd(e, s.RBD.CephMonitors, s.RBD.RBDImage, at)
	}
	if at := p.Child("quobyte"); only.ok(s.Quobyte != nil, at) {
		quobyte(e, s.Quobyte, at)
	}
	if only.ok(s.CephFS != nil, p.Child("cephFS")) && len(s.CephFS.Monitors) == 0 {
		e.Required(p.Child("cephfs").Child("monitors"), "")
	}
	if at := p.Child("iscsi"); only.ok(s.ISCSI != nil, at) {
		persistentISCSI(e, s.ISCSI, name, at)
	}
	if at := p.Child("cinder"); only.ok(s.Cinder != nil, at) {
		required(e, s.Cinder.VolumeID, at.Child("volumeID"))
		if r := s.Cinder.SecretRef; r != nil {
			required(e, r.Name, at.Child("secretRef").Child("name"))
			required(e, r.Namespace, at.Child("secretRef").Child("namespace"))
		}
	}
	if at := p.Child("fc"); only.ok(s.FC != nil, at) {
		fibreChannel(e, s.FC, at)
	}
	if s.FlexVolume != nil {
		only.n = 1
		flexVolume(e, s.FlexVolume.Driver, s.FlexVolume.Options, p.Child("flexVolume"))
	}
	if at := p.Child("azureFile"); only.ok(s.AzureFile != nil, at) {
		required(e, s.AzureFile.SecretName, at.Child("secretName"))
		required(e, s.AzureFile.ShareName, at.Child("shareName"))
		if s.AzureFile.SecretNamespace != nil {
			required(e, *s.AzureFile.SecretNamespace, at.Child("secretNamespace"))
		}
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
	if at := p.Child("scaleIO"); only.ok(s.ScaleIO != nil, at) {
		scaleIO(e, s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at)
	}
	if at := p.Child("local"); only.ok(s.Local != nil, at) {
		if s.Local.Path == "" {
			e.Required(at.Child("path"), "")
		} else {
			noBacksteps(e, s.Local.Path, at.Child("path"))
		}
		if s.NodeAffinity == nil {
			e.Required(p.Child("nodeAffinity"), "Local volume requires node affinity")
		}
	}
	if at := p.Child("storageos"); only.ok(s.StorageOS != nil, at) {
		storageOS(e, s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at)
		if r := s.StorageOS.SecretRef; r != nil {
			required(e, r.Name, at.Child("secretRef").Child("name"))
			required(e, r.Namespace, at.Child("secretRef").Child("namespace"))
		}
	}
	if at := p.Child("csi"); only.ok(s.CSI != nil, at) {
		csiDriver(e, s.CSI.Driver, at.Child("driver"))
		required(e, s.CSI.VolumeHandle, at.Child("volumeHandle"))
		secretRef(e, s.CSI.ControllerPublishSecretRef, at.Child("controllerPublishSecretRef"))
		secretRef(e, s.CSI.ControllerExpandSecretRef, at.Child("controllerExpandSecretRef"))
		secretRef(e, s.CSI.NodePublishSecretRef, at.Child("nodePublishSecretRef"))
		secretRef(e, s.CSI.NodeExpandSecretRef, at.Child("nodeExpandSecretRef"))
	}
	if only.n == 0 {
		e.Required(p, "must specify a volume type")
	}
}

func secretRef(e *validate.Errs, r *corev1.SecretReference, p *validate.Path) {
	if r == nil {
		return
	}
	if r.Name == "" {
		e.Required(p.Child("name"), "")
	} else {
		requiredSubdomain(e, r.Name, p.Child("name"))
	}
	if r.Namespace == "" {
		e.Required(p.Child("namespace"), "")
	} else {
		label(e, r.Namespace, p.Child("namespace"))
	}
}

func persistentISCSI(e *validate.Errs, s *corev1.ISCSIPersistentVolumeSource, name string, p *validate.Path) {
	const bad = "must be valid format"
	required(e, s.TargetPortal, p.Child("targetPortal"))
	if s.InitiatorName != nil && len(name)+1+len(s.TargetPortal) > 64 {
		e.Invalid(p.Child("targetportal"), s.TargetPortal, iscsiTooLong)
	}
	if s.IQN == "" {
		e.Required(p.Child("iqn"), "")
	} else {
		iscsiName(e, s.IQN, bad, p.Child("iqn"))
	}
	validate.Range(e, s.Lun, 0, 255, p.Child("lun"))
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		e.Required(p.Child("secretRef"), "")
	}
	if s.SecretRef != nil {
		required(e, s.SecretRef.Name, p.Child("secretRef").Child("name"))
	}
	if s.InitiatorName != nil {
		iscsiName(e, *s.InitiatorName, bad, p.Child("initiatorname"))
	}
}
