package job

import (
	"cmp"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-dev/proa/internal/controller/owned"
)

const (
	// burst is how many pods one pass creates or deletes at the most.
	burst = 500
	// mostUncounted pods are kept in a status.
	mostUncounted = 500
)

// state is what a decision is made from.
type state struct {
	job     *batchv1.Job
	pods    []*corev1.Pod // all that the job owns
	backoff record
	now     time.Time
}

// plan is one pass. First remove, then create, then the status is written, then
// the pods that it accounts for are released: a pod is counted once, whatever
// fails on the way (KEP-2307).
type plan struct {
	remove  []*corev1.Pod
	strip   bool // take the finalizer off what is removed first: it counts as nothing
	create  []*corev1.Pod
	status  batchv1.JobStatus
	release []*corev1.Pod // lose their finalizer once the status is written
	backoff record
	again   time.Duration
	events  []note
}

type note struct {
	kind, reason, message string
}

// work is a decision in the making.
type work struct {
	state
	p           *plan
	st          *batchv1.JobStatus
	active      []*corev1.Pod
	terminating int
	succeeded   int
	failed      int
	indexed     bool
	completions int
	before, now indexes             // succeeded: as the status has them, and with the pods that succeeded since
	lost        indexes             // failed for good, if the back-off limit is per index
	last        map[int]*corev1.Pod // failed pods whose index is to be tried again
	end         *batchv1.JobCondition
}

func decide(s state) plan {
	p := plan{}
	w := &work{state: s, p: &p, indexed: ptr.Deref(s.job.Spec.CompletionMode, "") == batchv1.IndexedCompletion}
	p.status = *s.job.Status.DeepCopy()
	w.st = &p.status
	if w.st.UncountedTerminatedPods == nil {
		w.st.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	w.completions = int(ptr.Deref(s.job.Spec.Completions, 0))
	w.count()
	if w.st.StartTime == nil && !w.suspended() {
		w.st.StartTime = ptr.To(metav1.NewTime(s.now))
	}
	w.judge()
	ready := 0
	for _, pod := range w.active {
		if owned.Ready(pod) {
			ready++
		}
	}
	active := len(w.active)
	if w.end != nil {
		p.remove = w.active
	} else if s.job.DeletionTimestamp == nil {
		w.manage()
	}
	active += len(p.create) - len(p.remove)
	for _, pod := range p.remove {
		if owned.Ready(pod) {
			ready--
		}
	}
	w.terminating += len(p.remove)
	if w.end == nil {
		if complete := w.complete(active); complete {
			w.end = w.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
		} else if s.job.DeletionTimestamp == nil {
			w.suspension()
		}
	}
	w.st.Active, w.st.Ready, w.st.Terminating = int32(active), ptr.To(int32(ready)), ptr.To(int32(w.terminating))
	w.account()
	w.finish()
	return p
}

func (w *work) condition(t batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	at := metav1.NewTime(w.state.now)
	return &batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastProbeTime: at, LastTransitionTime: at}
}

func (w *work) suspended() bool { return ptr.Deref(w.job.Spec.Suspend, false) }

// lazily: only what has ended for sure is replaced.
func (w *work) lazily() bool {
	return ptr.Deref(w.job.Spec.PodReplacementPolicy, "") == batchv1.Failed || w.job.Spec.PodFailurePolicy != nil
}

// isFailed says whether a pod counts as failed: ended, or on its way out.
func (w *work) isFailed(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || !w.lazily() && p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func terminating(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// valid says whether a pod's index is one of the job's, which may have shrunk.
func (w *work) valid(p *corev1.Pod) bool {
	return !w.indexed || indexOf(p) >= 0 && indexOf(p) < w.completions
}

// count the pods. Those that the status holds as uncounted and that have been
// released since move into its counters.
func (w *work) count() {
	held := map[types.UID]bool{}
	for _, p := range w.pods {
		if tracked(p) {
			held[p.UID] = true
		}
		if owned.Active(p) {
			w.active = append(w.active, p)
		} else if terminating(p) {
			w.terminating++
		}
	}
	u := w.st.UncountedTerminatedPods
	settle := func(list []types.UID, total *int32) []types.UID {
		left := slices.DeleteFunc(slices.Clone(list), func(id types.UID) bool { return !held[id] })
		*total += int32(len(list) - len(left))
		if len(left) == 0 {
			return nil
		}
		return left
	}
	if w.indexed { // its count follows from the indexes
		u.Succeeded = nil
	} else {
		u.Succeeded = settle(u.Succeeded, &w.st.Succeeded)
	}
	u.Failed = settle(u.Failed, &w.st.Failed)
	var good, bad []*corev1.Pod
	ignored := 0
	for _, p := range w.pods {
		switch {
		case !tracked(p) || !w.valid(p):
		case p.Status.Phase == corev1.PodSucceeded && !slices.Contains(u.Succeeded, p.UID):
			good = append(good, p)
		case w.isFailed(p) && !slices.Contains(u.Failed, p.UID):
			bad = append(bad, p)
			if !judgeFailure(w.job, p).counts {
				ignored++
			}
		}
	}
	w.succeeded = int(w.st.Succeeded) + len(good) + len(u.Succeeded)
	w.failed = int(w.st.Failed) + len(bad) - ignored + len(u.Failed)
	w.p.backoff = w.backoff.after(good, bad)
	if w.indexed {
		w.countIndexes()
	}
}

func (w *work) countIndexes() {
	w.before = parseIndexes(w.st.CompletedIndexes, w.completions)
	w.now = w.before
	for _, p := range w.pods {
		if tracked(p) && w.valid(p) && p.Status.Phase == corev1.PodSucceeded {
			w.now = w.now.with(span{indexOf(p), indexOf(p)})
		}
	}
	w.succeeded = w.now.total()
	if w.job.Spec.BackoffLimitPerIndex == nil {
		return
	}
	w.lost = parseIndexes(ptr.Deref(w.st.FailedIndexes, ""), w.completions)
	w.last = map[int]*corev1.Pod{}
	busy := map[int]bool{}
	for _, p := range w.active {
		busy[indexOf(p)] = true
	}
	for _, p := range w.pods {
		if !tracked(p) || !w.valid(p) || !w.isFailed(p) {
			continue
		}
		f := judgeFailure(w.job, p)
		counted, _ := failuresOf(p)
		if f.action == batchv1.PodFailurePolicyActionFailIndex || f.counts && counted >= int(*w.job.Spec.BackoffLimitPerIndex) {
			w.lost = w.lost.with(span{indexOf(p), indexOf(p)})
		}
	}
	for _, p := range w.pods { // the last failure of each index keeps its finalizer: its successor is told how often it was tried
		i := indexOf(p)
		if !tracked(p) || !w.valid(p) || !w.isFailed(p) || w.now.has(i) || w.lost.has(i) || busy[i] {
			continue
		}
		if have := w.last[i]; have != nil {
			_, a := failuresOf(have)
			_, b := failuresOf(p)
			if b < a || b == a && finished(p).Before(finished(have)) {
				continue
			}
		}
		w.last[i] = p
	}
}

// judge whether the job ends: by an earlier verdict, a policy, a limit, its deadline.
func (w *work) judge() {
	if c := find(w.st, batchv1.JobSuccessCriteriaMet); c != nil {
		w.end = c
		return
	}
	if c := find(w.st, batchv1.JobFailureTarget); c != nil {
		w.end = c
		return
	}
	fail := func(reason, message string) { w.end = w.condition(batchv1.JobFailureTarget, reason, message) }
	for _, p := range w.pods {
		if w.isFailed(p) {
			if f := judgeFailure(w.job, p); f.message != "" {
				fail(batchv1.JobReasonPodFailurePolicy, f.message)
				return
			}
		}
	}
	spec := &w.job.Spec
	switch deadline := spec.ActiveDeadlineSeconds; {
	case w.failed > int(ptr.Deref(spec.BackoffLimit, 6)) || w.restarts():
		fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
		return
	case deadline == nil || w.suspended() || w.st.StartTime == nil:
	default:
		left := w.st.StartTime.Add(time.Duration(*deadline) * time.Second).Sub(w.state.now)
		if left <= 0 {
			fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
			return
		}
		w.later(left)
	}
	if !w.indexed {
		return
	}
	switch n := w.lost.total(); {
	case spec.MaxFailedIndexes != nil && n > int(*spec.MaxFailedIndexes):
		fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
	case n > 0 && n+w.succeeded >= w.completions:
		fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
	default:
		if message, ok := succeeds(w.job, w.now); ok {
			w.end = w.condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message)
		}
	}
}

func (w *work) later(d time.Duration) {
	if d > 0 && (w.p.again == 0 || d < w.p.again) {
		w.p.again = d
	}
}

// restarts says whether containers that are restarted in their pods have used up
// the back-off limit.
func (w *work) restarts() bool {
	if w.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	n, limit := int32(0), ptr.Deref(w.job.Spec.BackoffLimit, 6)
	for _, p := range w.pods {
		if p.Status.Phase == corev1.PodRunning || p.Status.Phase == corev1.PodPending {
			for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
				for i := range list {
					n += list[i].RestartCount
				}
			}
		}
	}
	return n > 0 && n >= limit
}

// manage the number of active pods.
func (w *work) manage() {
	if w.suspended() {
		w.p.remove, w.p.strip = w.active, true
		return
	}
	want := int(ptr.Deref(w.job.Spec.Parallelism, 1))
	switch {
	case w.job.Spec.Completions != nil:
		want = max(0, min(want, w.completions-w.succeeded))
	case w.succeeded > 0:
		want = len(w.active)
	}
	if w.p.remove = w.surplus(max(0, len(w.active)-want)); len(w.p.remove) > 0 {
		w.p.remove, w.p.strip = w.p.remove[:min(burst, len(w.p.remove))], true
		return
	}
	n := want - len(w.active)
	if w.lazily() {
		n -= w.terminating
	}
	if n = min(n, burst); n <= 0 {
		return
	}
	perIndex := w.indexed && w.job.Spec.BackoffLimitPerIndex != nil
	if !perIndex {
		if d := w.p.backoff.wait(w.state.now); d > 0 {
			w.later(d)
			return
		}
	}
	if !w.indexed {
		for range n {
			w.p.create = append(w.p.create, podFor(w.job, -1, nil))
		}
		return
	}
	taken := w.now.with(w.lost...)
	for _, p := range w.pods {
		if i := indexOf(p); i >= 0 && (owned.Active(p) || w.lazily() && terminating(p)) {
			taken = taken.with(span{i, i})
		}
	}
	for _, i := range taken.missing(n, w.completions) {
		before := w.last[i]
		if before != nil {
			_, all := failuresOf(before)
			if d := (record{all + 1, finished(before)}).wait(w.state.now); d > 0 {
				w.later(d)
				continue
			}
		}
		w.p.create = append(w.p.create, podFor(w.job, i, before))
	}
}

// surplus pods: those of indexes that are no more or had twice, then, until there
// are n, those that would be missed least.
func (w *work) surplus(n int) []*corev1.Pod {
	left := slices.Clone(w.active)
	var out []*corev1.Pod
	owned.Rank(left, nil, w.state.now)
	if w.indexed {
		seen := map[int]bool{}
		var keep []*corev1.Pod
		for i := len(left) - 1; i >= 0; i-- { // the best of an index comes first here
			if p := left[i]; !w.valid(p) || seen[indexOf(p)] {
				out = append(out, p)
			} else {
				seen[indexOf(p)] = true
				keep = append(keep, p)
			}
		}
		slices.Reverse(keep)
		left = keep
	}
	if len(out) < n {
		out = append(out, left[:min(len(left), n-len(out))]...)
	}
	return out
}

func (w *work) complete(active int) bool {
	if w.job.Spec.Completions == nil {
		return w.succeeded > 0 && active == 0
	}
	return w.succeeded >= w.completions && active == 0
}

// suspension keeps the condition Suspended.
func (w *work) suspension() {
	c := findAny(w.st, batchv1.JobSuspended)
	switch on := w.suspended(); {
	case on && (c == nil || c.Status != corev1.ConditionTrue):
		setCondition(w.st, *w.condition(batchv1.JobSuspended, "JobSuspended", "Job suspended"))
		w.p.events = append(w.p.events, note{corev1.EventTypeNormal, "Suspended", "Job suspended"})
		w.st.StartTime = nil
	case !on && c != nil && c.Status != corev1.ConditionFalse:
		next := w.condition(batchv1.JobSuspended, "JobResumed", "Job resumed")
		next.Status = corev1.ConditionFalse
		setCondition(w.st, *next)
		w.p.events = append(w.p.events, note{corev1.EventTypeNormal, "Resumed", "Job resumed"})
		w.st.StartTime = ptr.To(metav1.NewTime(w.state.now))
	}
}

// account for the pods that have ended: into the status, from where they are
// counted once they are released.
func (w *work) account() {
	u := w.st.UncountedTerminatedPods
	pods := slices.Clone(w.pods)
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(indexOf(a), indexOf(b)) })
	succeededNow := w.before
	added := 0
	failing := w.end != nil && w.end.Type == batchv1.JobFailureTarget
	met := w.end != nil && !failing // then what is only on its way out has not failed
	for _, p := range pods {
		if !tracked(p) || !w.releasable(p) {
			continue
		}
		if added+len(u.Succeeded)+len(u.Failed) >= mostUncounted {
			w.later(time.Millisecond)
			break
		}
		w.p.release = append(w.p.release, p)
		switch {
		case p.Status.Phase == corev1.PodSucceeded && !slices.Contains(u.Failed, p.UID):
			if w.indexed {
				if w.valid(p) && !succeededNow.has(indexOf(p)) {
					succeededNow = succeededNow.with(span{indexOf(p), indexOf(p)})
					added++
				}
			} else if !slices.Contains(u.Succeeded, p.UID) {
				u.Succeeded = append(u.Succeeded, p.UID)
			}
		case w.isFailed(p) && !(met && p.Status.Phase != corev1.PodFailed) || failing:
			if !slices.Contains(u.Failed, p.UID) && w.valid(p) && judgeFailure(w.job, p).counts {
				u.Failed = append(u.Failed, p.UID)
			}
		}
	}
	if w.indexed {
		w.st.CompletedIndexes, w.st.Succeeded = succeededNow.String(), int32(succeededNow.total())
		if w.job.Spec.BackoffLimitPerIndex != nil {
			w.st.FailedIndexes = ptr.To(w.lost.String())
		}
	}
}

// releasable: a pod that has ended, or any once the job does; but not the last
// failed pod of an index that is to be tried again.
func (w *work) releasable(p *corev1.Pod) bool {
	if w.job.DeletionTimestamp != nil || w.end != nil || p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return w.isFailed(p) && w.last[indexOf(p)] != p
}

// finish the job: what its end will be is said at once, the end itself when no
// pod is left to be counted or to go.
func (w *work) finish() {
	if w.end == nil {
		return
	}
	known := find(&w.job.Status, w.end.Type) != nil
	setCondition(w.st, *w.end)
	u := w.st.UncountedTerminatedPods
	if !known || len(w.p.release)+len(u.Failed)+len(u.Succeeded) > 0 || w.terminating > 0 || w.st.Active > 0 {
		return
	}
	last := w.condition(batchv1.JobComplete, w.end.Reason, w.end.Message)
	if w.end.Type == batchv1.JobFailureTarget {
		last.Type = batchv1.JobFailed
		w.p.events = append(w.p.events, note{corev1.EventTypeWarning, last.Reason, last.Message})
	} else {
		w.st.CompletionTime = ptr.To(last.LastTransitionTime)
		if w.job.Spec.Completions != nil && int(w.st.Succeeded) > w.completions {
			w.p.events = append(w.p.events, note{corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached"})
		}
		w.p.events = append(w.p.events, note{corev1.EventTypeNormal, "Completed", "Job completed"})
	}
	setCondition(w.st, *last)
}

// find a condition that is true.
func find(st *batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	if c := findAny(st, t); c != nil && c.Status == corev1.ConditionTrue {
		return c
	}
	return nil
}

func findAny(st *batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range st.Conditions {
		if st.Conditions[i].Type == t {
			c := st.Conditions[i]
			return &c
		}
	}
	return nil
}

func setCondition(st *batchv1.JobStatus, c batchv1.JobCondition) {
	for i := range st.Conditions {
		if st.Conditions[i].Type == c.Type {
			if st.Conditions[i].Status != c.Status || st.Conditions[i].Reason != c.Reason {
				st.Conditions[i] = c
			}
			return
		}
	}
	st.Conditions = append(st.Conditions, c)
}
