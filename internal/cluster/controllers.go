package cluster

import (
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/controller/aggregation"
	"github.com/proa-dev/proa/internal/controller/attach"
	"github.com/proa-dev/proa/internal/controller/attributesclass"
	csr "github.com/proa-dev/proa/internal/controller/certificates"
	"github.com/proa-dev/proa/internal/controller/cronjob"
	"github.com/proa-dev/proa/internal/controller/daemonset"
	"github.com/proa-dev/proa/internal/controller/deployment"
	"github.com/proa-dev/proa/internal/controller/devicetaint"
	"github.com/proa-dev/proa/internal/controller/disruption"
	"github.com/proa-dev/proa/internal/controller/endpoints"
	"github.com/proa-dev/proa/internal/controller/expand"
	"github.com/proa-dev/proa/internal/controller/flowcontrol"
	"github.com/proa-dev/proa/internal/controller/gc"
	"github.com/proa-dev/proa/internal/controller/job"
	"github.com/proa-dev/proa/internal/controller/loop"
	"github.com/proa-dev/proa/internal/controller/mirror"
	"github.com/proa-dev/proa/internal/controller/namespace"
	"github.com/proa-dev/proa/internal/controller/nodeipam"
	"github.com/proa-dev/proa/internal/controller/nodelifecycle"
	"github.com/proa-dev/proa/internal/controller/podautoscaler"
	"github.com/proa-dev/proa/internal/controller/podgc"
	"github.com/proa-dev/proa/internal/controller/replicaset"
	"github.com/proa-dev/proa/internal/controller/resourceclaim"
	"github.com/proa-dev/proa/internal/controller/resourcequota"
	"github.com/proa-dev/proa/internal/controller/serviceaccount"
	"github.com/proa-dev/proa/internal/controller/servicecidr"
	"github.com/proa-dev/proa/internal/controller/statefulset"
	"github.com/proa-dev/proa/internal/controller/storagemigration"
	"github.com/proa-dev/proa/internal/controller/token"
	"github.com/proa-dev/proa/internal/controller/tokencleaner"
	"github.com/proa-dev/proa/internal/controller/ttl"
	"github.com/proa-dev/proa/internal/controller/volume"
)

// controllers of the cluster, made before the informers run. Each acts under the
// account that Kubernetes has for it.
func (s *server) controllers(inf *client.Informers) []loop.Controller {
	log, as := s.logFor("controllers"), inf.As
	return []loop.Controller{
		serviceaccount.New(as("service-account-controller"), func() []byte { return s.certs.ca.PEM }, log),
		nodeipam.New(as("node-controller"), nodeipam.Config{ClusterCIDRs: s.Server.ClusterCIDRs, MaskSize4: s.Server.NodeCIDRMask}, log),
		replicaset.New(as("replicaset-controller"), log),
		replicaset.NewReplication(as("replication-controller"), log),
		daemonset.New(as("daemon-set-controller"), log),
		statefulset.New(as("statefulset-controller"), log),
		job.New(as("job-controller"), log),
		cronjob.New(as("cronjob-controller"), log),
		ttl.New(as("ttl-after-finished-controller"), log),
		disruption.New(as("disruption-controller"), log),
		resourcequota.New(as("resourcequota-controller"), &s.charged, log),
		volume.New(as("persistent-volume-binder"), s.localVolumes(), log),
		expand.New(as("expand-controller"), volume.Provisioner, log),
		attach.New(as("attachdetach-controller"), log),
		storagemigration.New(as("storage-version-migrator-controller"), log),
		mirror.New(as("endpointslicemirroring-controller"), log),
		aggregation.New(inf, s.account("clusterrole-aggregation-controller"), log),
		token.New(inf, token.Config{Sign: s.auth.ServiceAccounts.LegacyToken, RootCA: func() []byte { return s.certs.ca.PEM }}, log),
		tokencleaner.New(as("legacy-service-account-token-cleaner"), tokencleaner.Config{}, log),
		deployment.New(as("deployment-controller"), log),
		endpoints.New(as("endpointslice-controller"), log),
		servicecidr.New(as("service-cidrs-controller"), log),
		gc.New(as("generic-garbage-collector").Conn(), log),
		namespace.New(as("namespace-controller"), log),
		nodelifecycle.New(as("node-controller"), log),
		devicetaint.New(inf, s.account("device-taint-eviction-controller"), log),
		podautoscaler.New(as("horizontal-pod-autoscaler"), podautoscaler.Config{Options: podautoscaler.Defaults(), API: s.scalerAPI()}, log),
		podgc.New(as("pod-garbage-collector"), log),
		attributesclass.New(as("volumeattributesclass-protection-controller"), log),
		resourceclaim.New(as("resource-claim-controller"), log),
		flowcontrol.New(as("apiserver"), log),
		csr.New(inf, s.account("certificate-controller"), csr.Config{May: s.mayRequest, Sign: s.certs.ca.SignCertificate}, log),
	}
}
