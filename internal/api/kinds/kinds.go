// Package kinds lists the kinds that are built in.
package kinds

import (
	"slices"
	"time"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/admissionregistration"
	"github.com/proa-dev/proa/internal/api/apiextensions"
	"github.com/proa-dev/proa/internal/api/apiregistration"
	"github.com/proa-dev/proa/internal/api/apps"
	"github.com/proa-dev/proa/internal/api/authentication"
	"github.com/proa-dev/proa/internal/api/authorization"
	"github.com/proa-dev/proa/internal/api/autoscaling"
	"github.com/proa-dev/proa/internal/api/batch"
	"github.com/proa-dev/proa/internal/api/certificates"
	"github.com/proa-dev/proa/internal/api/coordination"
	"github.com/proa-dev/proa/internal/api/core"
	"github.com/proa-dev/proa/internal/api/discovery"
	"github.com/proa-dev/proa/internal/api/flowcontrol"
	"github.com/proa-dev/proa/internal/api/index"
	"github.com/proa-dev/proa/internal/api/metrics"
	"github.com/proa-dev/proa/internal/api/networking"
	"github.com/proa-dev/proa/internal/api/node"
	"github.com/proa-dev/proa/internal/api/policy"
	"github.com/proa-dev/proa/internal/api/rbac"
	"github.com/proa-dev/proa/internal/api/resource"
	"github.com/proa-dev/proa/internal/api/scheduling"
	"github.com/proa-dev/proa/internal/api/storage"
	"github.com/proa-dev/proa/internal/api/storagemigration"
)

// All built-in kinds, in the order of discovery.
func All() []*api.Kind {
	all := slices.Concat(
		core.Kinds(),
		apps.Kinds(),
		authentication.Kinds(),
		authorization.Kinds(),
		autoscaling.Kinds(),
		batch.Kinds(),
		certificates.Kinds(time.Now),
		networking.Kinds(),
		policy.Kinds(),
		rbac.Kinds(),
		storage.Kinds(),
		storagemigration.Kinds(),
		admissionregistration.Kinds(),
		coordination.Kinds(),
		discovery.Kinds(),
		node.Kinds(),
		scheduling.Kinds(),
		flowcontrol.Kinds(),
		resource.Kinds(time.Now),
		apiextensions.Kinds(),
		apiregistration.Kinds(),
		metrics.Kinds(),
	)
	index.Add(all...)
	return all
}

// Catalog holds all built-in kinds. It panics if two of them contradict each
// other, which only a mistake in this tree can bring about.
func Catalog() *api.Catalog {
	catalog, err := api.NewCatalog(All()...)
	if err != nil {
		panic(err)
	}
	return catalog
}
