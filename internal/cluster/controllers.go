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

// controllers of the cluster, made before the informers run.
func (s *server) controllers(inf *client.Informers) []loop.Controller {
	log := s.logFor("controllers")
	return []loop.Controller{
		serviceaccount.New(inf, func() []byte { return s.certs.ca.PEM }, log),
		nodeipam.New(inf, nodeipam.Config{ClusterCIDRs: s.Server.ClusterCIDRs, MaskSize4: s.Server.NodeCIDRMask}, log),
		replicaset.New(inf, log),
		replicaset.NewReplication(inf, log),
		daemonset.New(inf, log),
		statefulset.New(inf, log),
		job.New(inf, log),
		cronjob.New(inf, log),
		ttl.New(inf, log),
		disruption.New(inf, log),
		resourcequota.New(inf, &s.charged, log),
		volume.New(inf, s.localVolumes(), log),
		expand.New(inf, volume.Provisioner, log),
		attach.New(inf, log),
		storagemigration.New(inf, log),
		mirror.New(inf, log),
		aggregation.New(inf, s.as("system:serviceaccount:kube-system:clusterrole-aggregation-controller"), log),
		token.New(inf, token.Config{Sign: s.auth.ServiceAccounts.LegacyToken, RootCA: func() []byte { return s.certs.ca.PEM }}, log),
		tokencleaner.New(inf, tokencleaner.Config{}, log),
		deployment.New(inf, log),
		endpoints.New(inf, log),
		servicecidr.New(inf, log),
		gc.New(inf.Conn(), log),
		namespace.New(inf, log),
		nodelifecycle.New(inf, log),
		devicetaint.New(inf, s.as("system:serviceaccount:kube-system:device-taint-eviction-controller"), log),
		podautoscaler.New(inf, podautoscaler.Config{Options: podautoscaler.Defaults(), API: s.scalerAPI()}, log),
		podgc.New(inf, log),
		attributesclass.New(inf, log),
		resourceclaim.New(inf, log),
		flowcontrol.New(inf, log),
		csr.New(inf, s.as("system:serviceaccount:kube-system:certificate-controller"), csr.Config{May: s.mayRequest, Sign: s.certs.ca.SignCertificate}, log),
	}
}
