package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/proa-dev/proa/internal/kubelet/pod"
	"github.com/proa-dev/proa/internal/kubelet/runtime"
)

// Annotations of static pods and of their mirrors in the API.
const (
	sourceAnnotation = "kubernetes.io/config.source"
	hashAnnotation   = "kubernetes.io/config.hash"
	seenAnnotation   = "kubernetes.io/config.seen"
)

// staticPods runs the pods whose manifests are in a folder, and follows the
// folder. They run without the API server; it is shown a mirror of each.
func (k *kubelet) staticPods(ctx context.Context) error {
	if err := os.MkdirAll(k.Manifests, 0o755); err != nil {
		return err
	}
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watch.Close()
	if err := watch.Add(k.Manifests); err != nil {
		return err
	}
	running := map[types.UID]bool{}
	for {
		want := k.manifests()
		for uid := range running {
			if want[uid] == nil {
				delete(running, uid)
				k.tell(uid, func(w *worker) { w.gone = true })
			}
		}
		for uid, p := range want {
			if !running[uid] {
				running[uid] = true
				k.runStatic(p)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-watch.Events:
			settle(ctx, watch)
		case err := <-watch.Errors:
			k.log.Warn("folder of static pods", "err", err)
		}
	}
}

// settle waits until a folder has been quiet for a moment: a file that is being
// written is not yet a manifest.
func settle(ctx context.Context, watch *fsnotify.Watcher) {
	const quiet = 100 * time.Millisecond
	t := time.NewTimer(quiet)
	defer t.Stop()
	for {
		select {
		case <-watch.Events:
			t.Reset(quiet)
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// manifests of the folder that are good pods, by UID.
func (k *kubelet) manifests() map[types.UID]*v1.Pod {
	want := map[types.UID]*v1.Pod{}
	entries, err := os.ReadDir(k.Manifests)
	if err != nil {
		k.log.Warn("folder of static pods", "err", err)
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(k.Manifests, e.Name()))
		if err != nil {
			continue
		}
		p, err := staticPod(b, k.Name)
		if err != nil {
			k.log.Warn("this is not a static pod", "file", e.Name(), "err", err)
			continue
		}
		want[p.UID] = p
	}
	return want
}

// staticPod of a manifest: named after the node too, its UID a hash of what it says.
func staticPod(manifest []byte, node string) (*v1.Pod, error) {
	p := &v1.Pod{}
	if err := yaml.Unmarshal(manifest, p); err != nil {
		return nil, err
	}
	if p.Kind != "Pod" || p.Name == "" || len(p.Spec.Containers) == 0 {
		return nil, fmt.Errorf("a manifest here has kind: Pod, a metadata.name and containers; this one is a %q named %q", p.Kind, p.Name)
	}
	sum := sha256.Sum256(append(manifest, node...))
	hash := hex.EncodeToString(sum[:16])
	p.TypeMeta = metav1.TypeMeta{}
	p.Name += "-" + node
	if p.Namespace == "" {
		p.Namespace = metav1.NamespaceDefault
	}
	p.UID, p.ResourceVersion, p.Generation = types.UID(hash), "", 1
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[sourceAnnotation], p.Annotations[hashAnnotation] = "file", hash
	p.Annotations[seenAnnotation] = time.Now().UTC().Format(time.RFC3339)
	p.Status = v1.PodStatus{Phase: v1.PodPending}
	complete(&p.Spec, node)
	return p, nil
}

// complete fills in what the API server would have.
func complete(s *v1.PodSpec, node string) {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	s.NodeName = node
	set((*string)(&s.RestartPolicy), string(v1.RestartPolicyAlways))
	set((*string)(&s.DNSPolicy), string(v1.DNSClusterFirst))
	if s.TerminationGracePeriodSeconds == nil {
		grace := int64(v1.DefaultTerminationGracePeriodSeconds)
		s.TerminationGracePeriodSeconds = &grace
	}
	if s.SecurityContext == nil {
		s.SecurityContext = &v1.PodSecurityContext{}
	}
	s.Tolerations = append(s.Tolerations, v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute})
	each := func(c *v1.Container) {
		set(&c.TerminationMessagePath, v1.TerminationMessagePathDefault)
		set((*string)(&c.TerminationMessagePolicy), string(v1.TerminationMessageReadFile))
		policy := v1.PullIfNotPresent
		if last := c.Image[strings.LastIndexByte(c.Image, '/')+1:]; !strings.ContainsAny(last, ":@") || strings.HasSuffix(last, ":latest") {
			policy = v1.PullAlways
		}
		set((*string)(&c.ImagePullPolicy), string(policy))
		for i := range c.Ports {
			set((*string)(&c.Ports[i].Protocol), string(v1.ProtocolTCP))
			if s.HostNetwork && c.Ports[i].HostPort == 0 {
				c.Ports[i].HostPort = c.Ports[i].ContainerPort
			}
		}
		for _, pr := range []*v1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if pr != nil {
				pr.TimeoutSeconds = max(pr.TimeoutSeconds, 1)
				if pr.PeriodSeconds == 0 {
					pr.PeriodSeconds = 10
				}
				pr.SuccessThreshold = max(pr.SuccessThreshold, 1)
				if pr.FailureThreshold == 0 {
					pr.FailureThreshold = 3
				}
			}
		}
	}
	for i := range s.InitContainers {
		each(&s.InitContainers[i])
	}
	for i := range s.Containers {
		each(&s.Containers[i])
	}
}

// runStatic begins the worker of a static pod, or takes it up again.
func (k *kubelet) runStatic(p *v1.Pod) {
	k.mu.Lock()
	w := k.workers[p.UID]
	if w == nil {
		w = k.newWorker(runtime.Ref{Namespace: p.Namespace, Name: p.Name, UID: p.UID})
		k.workers[p.UID] = w
	}
	w.static = true
	w.begin()
	k.mu.Unlock()
	w.tell(func(w *worker) { w.update(p) })
}

// mirror shows a static pod in the API: its mirror is made, replaced when it is of
// another manifest, and its status kept.
func (w *worker) mirror(ctx context.Context, want *v1.PodStatus) {
	if w.saving || w.st.Now.Before(w.retry) || w.mirrored != nil && pod.Same(w.mirrored, want) {
		return
	}
	w.saving = true
	k, p := w.k, w.api
	go func() {
		err := k.reflect(ctx, p, want)
		w.tell(func(w *worker) {
			w.saving, w.retry = false, time.Time{}
			if err == nil {
				w.mirrored = want
			} else if ctx.Err() == nil {
				w.log.Warn("static pod not shown in the API", "err", err)
				w.retry = time.Now().Add(10 * time.Second)
			}
		})
	}()
}

func (k *kubelet) reflect(ctx context.Context, p *v1.Pod, want *v1.PodStatus) error {
	hash := p.Annotations[hashAnnotation]
	var err error
	m, ok := k.bound.Get(p.Namespace, p.Name)
	if ok && m.Annotations[v1.MirrorPodAnnotationKey] != hash {
		if err := k.forget(ctx, m); err != nil {
			return err
		}
		ok = false
	}
	if !ok {
		c := p.DeepCopy()
		c.UID, c.Generation = "", 0
		c.Annotations[v1.MirrorPodAnnotationKey] = hash
		if n := k.nodeObject(); n != nil {
			yes := true
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: &yes}}
		}
		m, err = k.pods.Create(ctx, c)
	}
	if err != nil || equality.Semantic.DeepEqual(m.Status, *want) {
		return err
	}
	c := m.DeepCopy()
	c.Status = *want
	_, err = k.pods.UpdateStatus(ctx, c)
	return err
}

// unmirror removes the mirror of a static pod that is gone.
func (k *kubelet) unmirror(ctx context.Context, p *v1.Pod) {
	m, ok := k.bound.Get(p.Namespace, p.Name)
	if !ok || m.Annotations[v1.MirrorPodAnnotationKey] != p.Annotations[hashAnnotation] {
		return
	}
	if err := k.forget(ctx, m); err != nil {
		k.log.Warn("mirror pod not deleted", "pod", p.Name, "err", err)
	}
}

// forget a mirror: delete its object at once.
func (k *kubelet) forget(ctx context.Context, m *v1.Pod) error {
	zero := int64(0)
	err := k.pods.Delete(ctx, m.Namespace, m.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(m.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
