package core

import (
	"net"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/validate"
)

// The sources below are shared by pods' volumes and persistent volumes.

const iscsiTooLong = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."

func hostPath(e *validate.Errs, h *corev1.HostPathVolumeSource, p *validate.Path) {
	if h.Path == "" {
		e.Required(p.Child("path"), "")
		return
	}
	noBacksteps(e, h.Path, p.Child("path"))
	if h.Type != nil {
		validate.OneOf(e, p.Child("type"), *h.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
	}
}

func gceDisk(e *validate.Errs, d *corev1.GCEPersistentDiskVolumeSource, p *validate.Path) {
	required(e, d.PDName, p.Child("pdName"))
	partition(e, d.Partition, p.Child("partition"))
}

func awsDisk(e *validate.Errs, d *corev1.AWSElasticBlockStoreVolumeSource, p *validate.Path) {
	required(e, d.VolumeID, p.Child("volumeID"))
	partition(e, d.Partition, p.Child("partition"))
}

func partition(e *validate.Errs, n int32, p *validate.Path) {
	if n < 0 || n > 255 {
		e.Invalid(p, n, validation.InclusiveRangeError(1, 255))
	}
}

func nfs(e *validate.Errs, n *corev1.NFSVolumeSource, p *validate.Path) {
	required(e, n.Server, p.Child("server"))
	required(e, n.Path, p.Child("path"))
	if !path.IsAbs(n.Path) {
		e.Invalid(p.Child("path"), n.Path, "must be an absolute path")
	}
}

func iscsi(e *validate.Errs, s *corev1.ISCSIVolumeSource, p *validate.Path) {
	required(e, s.TargetPortal, p.Child("targetPortal"))
	if s.IQN == "" {
		e.Required(p.Child("iqn"), "")
	} else {
		iscsiName(e, s.IQN, "must be valid format starting with iqn, eui, or naa", p.Child("iqn"))
	}
	validate.Range(e, s.Lun, 0, 255, p.Child("lun"))
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		e.Required(p.Child("secretRef"), "")
	}
	if s.InitiatorName != nil {
		iscsiName(e, *s.InitiatorName, "must be valid format starting with iqn, eui, or naa", p.Child("initiatorname"))
	}
}

// iscsiName: an iSCSI qualified name, EUI-64 or NAA (RFC 3720, 3980).
func iscsiName(e *validate.Errs, s, unknown string, p *validate.Path) {
	good := true
	switch {
	case strings.HasPrefix(s, "iqn"):
		good = isIQN(s)
	case strings.HasPrefix(s, "eui"):
		good = len(s) == 20 && allAlnum(s[4:])
	case strings.HasPrefix(s, "naa"):
		good = len(s) == 36 && allAlnum(s[4:])
	default:
		e.Invalid(p, s, unknown)
	}
	if !good {
		e.Invalid(p, s, "must be valid format")
	}
}

// isIQN: iqn.YYYY-MM.domain:name
func isIQN(s string) bool {
	digits := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	if len(s) < 13 || s[:4] != "iqn." || !digits(s[4:8]) || s[8] != '-' || !digits(s[9:11]) || s[11] != '.' {
		return false
	}
	domain, name, ok := strings.Cut(s[12:], ":")
	if !ok || domain == "" || name == "" || strings.ContainsAny(name, ",;*&$| \t\n\f\r") {
		return false
	}
	for i := 0; i < len(domain); i++ {
		if !isAlnum(domain[i]) && domain[i] != '-' && domain[i] != '.' {
			return false
		}
	}
	return true
}

func allAlnum(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAlnum(s[i]) {
			return false
		}
	}
	return true
}

func flocker(e *validate.Errs, f *corev1.FlockerVolumeSource, p *validate.Path) {
	if f.DatasetName == "" && f.DatasetUUID == "" {
		e.Required(p, "one of datasetName and datasetUUID is required")
	}
	if f.DatasetName != "" && f.DatasetUUID != "" {
		e.Invalid(p, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(f.DatasetName, "/") {
		e.Invalid(p.Child("datasetName"), f.DatasetName, "must not contain '/'")
	}
}

func rbd(e *validate.Errs, monitors []string, image string, p *validate.Path) {
	if len(monitors) == 0 {
		e.Required(p.Child("monitors"), "")
	}
	required(e, image, p.Child("image"))
}

func quobyte(e *validate.Errs, q *corev1.QuobyteVolumeSource, p *validate.Path) {
	const pairs = "must be a host:port pair or multiple pairs separated by commas"
	switch {
	case q.Registry == "":
		e.Required(p.Child("registry"), pairs)
	case len(q.Tenant) >= 65:
		e.Required(p.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	default:
		for pair := range strings.SplitSeq(q.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				e.Invalid(p.Child("registry"), q.Registry, pairs)
			}
		}
	}
	required(e, q.Volume, p.Child("volume"))
}

func fibreChannel(e *validate.Errs, f *corev1.FCVolumeSource, p *validate.Path) {
	if len(f.TargetWWNs) == 0 && len(f.WWIDs) == 0 {
		e.Required(p.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")
	}
	if len(f.TargetWWNs) != 0 && len(f.WWIDs) != 0 {
		e.Invalid(p.Child("targetWWNs"), f.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(f.TargetWWNs) != 0 {
		if f.Lun == nil {
			e.Required(p.Child("lun"), "lun is required if targetWWNs is specified")
		} else {
			validate.Range(e, *f.Lun, 0, 255, p.Child("lun"))
		}
	}
}

func flexVolume(e *validate.Errs, driver string, options map[string]string, p *validate.Path) {
	required(e, driver, p.Child("driver"))
	for k := range options {
		domain, _, _ := strings.Cut(k, "/")
		if d := "." + strings.ToLower(domain); strings.HasSuffix(d, ".kubernetes.io") || strings.HasSuffix(d, ".k8s.io") {
			e.Invalid(p.Child("options").Key(k), k, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func azureDisk(e *validate.Errs, d *corev1.AzureDiskVolumeSource, p *validate.Path) {
	required(e, d.DiskName, p.Child("diskName"))
	required(e, d.DataDiskURI, p.Child("diskURI"))
	if d.CachingMode != nil {
		validate.OneOf(e, p.Child("cachingMode"), *d.CachingMode, corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if d.Kind == nil {
		return
	}
	validate.OneOf(e, p.Child("kind"), *d.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
	if managed := *d.Kind == corev1.AzureManagedDisk; managed && !strings.HasPrefix(d.DataDiskURI, "/subscriptions/") {
		validate.NotSupported(e, p.Child("diskURI"), d.DataDiskURI, "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}")
	} else if !managed && !strings.HasPrefix(d.DataDiskURI, "https://") {
		validate.NotSupported(e, p.Child("diskURI"), d.DataDiskURI, "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
	}
}

func storageOS(e *validate.Errs, volume, namespace string, p *validate.Path) {
	if volume == "" {
		e.Required(p.Child("volumeName"), "")
	} else {
		label(e, volume, p.Child("volumeName"))
	}
	if namespace != "" {
		label(e, namespace, p.Child("volumeNamespace"))
	}
}

func scaleIO(e *validate.Errs, gateway, system, volume string, p *validate.Path) {
	required(e, gateway, p.Child("gateway"))
	required(e, system, p.Child("system"))
	required(e, volume, p.Child("volumeName"))
}

func csiDriver(e *validate.Errs, name string, p *validate.Path) {
	if name == "" {
		e.Required(p, "")
		return
	}
	if len(name) > 63 {
		e.TooLong(p, 63)
	}
	if why := validate.Subdomain(strings.ToLower(name)); why != nil {
		e.Invalids(p, name, why)
	}
}
