package deployment

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/proa-dev/proa/internal/client/event"
)

// rollback does what the annotation of extensions/v1beta1's rollbackTo asks for:
// the template of an earlier revision becomes the current one.
func (c *Controller) rollback(ctx context.Context, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, target string) error {
	about := event.Ref(c.deployments.Kind(), d)
	out := d.DeepCopy()
	delete(out.Annotations, appsv1.DeprecatedRollbackTo)
	revision, err := strconv.ParseInt(target, 10, 64)
	if err == nil && revision == 0 {
		revision = previous(sets)
	}
	found := false
	for _, rs := range sets {
		if err != nil || revision == 0 || revisionOf(rs) != revision {
			continue
		}
		found = true
		if sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			c.record.Warning(about, "DeploymentRollbackTemplateUnchanged", "The rollback revision contains the same template as current deployment %q", d.Name)
			break
		}
		out.Spec.Template = *rs.Spec.Template.DeepCopy()
		out.Spec.Template.Labels = without(out.Spec.Template.Labels, hashLabel)
		c.record.Normal(about, "DeploymentRollback", "Rolled back deployment %q to revision %d", d.Name, revision)
		break
	}
	if !found {
		c.record.Warning(about, "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.")
	}
	_, err = c.deployments.Update(ctx, out)
	return err
}

// previous is the second-highest revision, 0 if there is none.
func previous(sets []*appsv1.ReplicaSet) (second int64) {
	first := int64(0)
	for _, rs := range sets {
		switch v := revisionOf(rs); {
		case v > first:
			first, second = v, first
		case v > second:
			second = v
		}
	}
	return second
}
