package simulate

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/kinds"
	"github.com/proa-dev/proa/internal/client"
	"github.com/proa-dev/proa/internal/client/remote"
	"github.com/proa-dev/proa/internal/scheduler"
)

// Explain where a pod of a running cluster would go now and why, from what the
// cluster's API says of its nodes and pods. namespace "" = that of the
// kubeconfig's context; config nil = upstream's defaults.
func Explain(ctx context.Context, kubeconfig, kubecontext, namespace, pod string, config *scheduler.Configuration) (*scheduler.Explanation, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubecontext})
	rest, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: is there a cluster? (proa up makes one; --kubeconfig and --context name another)", err)
	}
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, err
		}
	}
	conn, err := remote.New(remote.Config{REST: rest, Catalog: kinds.Catalog(), Manager: "proa"})
	if err != nil {
		return nil, err
	}
	obj, err := client.For[*corev1.Pod](conn).Get(ctx, namespace, pod)
	if err != nil {
		return nil, err
	}
	w := scheduler.NewWorld(0, config)
	budgets, err := client.For[*policyv1.PodDisruptionBudget](conn).List(ctx, "", client.ListOptions{})
	err = errors.Join(err,
		take[*corev1.Node](ctx, w, conn), take[*corev1.Namespace](ctx, w, conn), take[*corev1.Pod](ctx, w, conn),
		take[*corev1.Service](ctx, w, conn), take[*corev1.ReplicationController](ctx, w, conn), take[*appsv1.ReplicaSet](ctx, w, conn), take[*appsv1.StatefulSet](ctx, w, conn),
		take[*corev1.PersistentVolumeClaim](ctx, w, conn), take[*corev1.PersistentVolume](ctx, w, conn), take[*storagev1.StorageClass](ctx, w, conn),
		take[*storagev1.CSINode](ctx, w, conn), take[*storagev1.CSIDriver](ctx, w, conn), take[*storagev1.CSIStorageCapacity](ctx, w, conn), take[*storagev1.VolumeAttachment](ctx, w, conn),
		take[*resourcev1.DeviceClass](ctx, w, conn), take[*resourcev1.ResourceSlice](ctx, w, conn), take[*resourcev1.ResourceClaim](ctx, w, conn))
	if err != nil {
		return nil, err
	}
	e := w.Explain(ctx, obj, budgets)
	return &e, nil
}

func take[T api.Object](ctx context.Context, w *scheduler.World, conn client.Conn) error {
	all, err := client.For[T](conn).List(ctx, "", client.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil // not served there
	}
	for _, o := range all {
		w.Set(o)
	}
	return err
}
