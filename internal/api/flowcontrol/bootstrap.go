package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Names of the mandatory objects: a server treats requests by them even when they
// were deleted, until they are back.
const (
	Exempt   = "exempt"
	CatchAll = "catch-all"
)

// Mandatory says whether an object is one of those whose spec nobody may change
// for long.
func Mandatory(name string) bool { return name == Exempt || name == CatchAll }

// Levels are the priority levels that every cluster has (KEP-1040): the two
// mandatory ones first.
func Levels() []*flowcontrolv1.PriorityLevelConfiguration {
	limited := func(name string, shares, lendable int32, queuing *flowcontrolv1.QueuingConfiguration) *flowcontrolv1.PriorityLevelConfiguration {
		response := flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}
		if queuing != nil {
			response = flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue, Queuing: queuing}
		}
		return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: bootstrapMeta(name), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: ptr.To(shares), LendablePercent: ptr.To(lendable), LimitResponse: response,
			},
		}}
	}
	queues := func(n, hand int32) *flowcontrolv1.QueuingConfiguration {
		return &flowcontrolv1.QueuingConfiguration{Queues: n, HandSize: hand, QueueLengthLimit: 50}
	}
	return []*flowcontrolv1.PriorityLevelConfiguration{
		{ObjectMeta: bootstrapMeta(Exempt), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type:   flowcontrolv1.PriorityLevelEnablementExempt,
			Exempt: &flowcontrolv1.ExemptPriorityLevelConfiguration{NominalConcurrencyShares: ptr.To[int32](0), LendablePercent: ptr.To[int32](0)},
		}},
		limited(CatchAll, 5, 0, nil),
		limited("system", 30, 33, queues(64, 6)),
		limited("node-high", 40, 25, queues(64, 6)),
		limited("leader-election", 10, 0, queues(16, 4)),
		limited("workload-high", 40, 50, queues(128, 6)),
		limited("workload-low", 100, 90, queues(128, 6)),
		limited("global-default", 20, 50, queues(128, 6)),
	}
}

// Schemas are the flow schemas that every cluster has, the two mandatory ones
// first.
func Schemas() []*flowcontrolv1.FlowSchema {
	const all = flowcontrolv1.ResourceAll
	user, namespace := flowcontrolv1.FlowDistinguisherMethodByUserType, flowcontrolv1.FlowDistinguisherMethodByNamespaceType
	everybody := groups("system:unauthenticated", "system:authenticated")
	anything := []flowcontrolv1.ResourcePolicyRule{resources(all, all, true, all)}
	anywhere := []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{all}, NonResourceURLs: []string{all}}}
	schema := func(name, level string, precedence int32, by flowcontrolv1.FlowDistinguisherMethodType, who []flowcontrolv1.Subject, what []flowcontrolv1.ResourcePolicyRule, where []flowcontrolv1.NonResourcePolicyRule) *flowcontrolv1.FlowSchema {
		f := &flowcontrolv1.FlowSchema{ObjectMeta: bootstrapMeta(name), Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
			MatchingPrecedence:         precedence,
			Rules:                      []flowcontrolv1.PolicyRulesWithSubjects{{Subjects: who, ResourceRules: what, NonResourceRules: where}},
		}}
		if by != "" {
			f.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: by}
		}
		return f
	}
	leases := func(verbs ...string) flowcontrolv1.ResourcePolicyRule {
		return resources("coordination.k8s.io", "leases", false, verbs...)
	}
	nodes := resources("", "nodes", true, all)
	nodes.Resources = append(nodes.Resources, "nodes/status")
	return []*flowcontrolv1.FlowSchema{
		schema(Exempt, Exempt, 1, "", groups("system:masters"), anything, anywhere),
		schema(CatchAll, CatchAll, 10000, user, everybody, anything, anywhere),
		schema("probes", Exempt, 2, "", everybody, nil,
			[]flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/readyz", "/livez"}}}),
		schema("system-leader-election", "leader-election", 100, user,
			append(users("system:kube-controller-manager", "system:kube-scheduler"), systemAccounts()...),
			[]flowcontrolv1.ResourcePolicyRule{leases("get", "create", "update")}, nil),
		schema("system-node-high", "node-high", 400, user, groups("system:nodes"), []flowcontrolv1.ResourcePolicyRule{nodes, leases(all)}, nil),
		schema("system-nodes", "system", 500, user, groups("system:nodes"), anything, anywhere),
		schema("kube-controller-manager", "workload-high", 800, namespace, users("system:kube-controller-manager"), anything, anywhere),
		schema("kube-scheduler", "workload-high", 800, namespace, users("system:kube-scheduler"), anything, anywhere),
		schema("kube-system-service-accounts", "workload-high", 900, namespace, systemAccounts(), anything, anywhere),
		schema("service-accounts", "workload-low", 9000, user, groups("system:serviceaccounts"), anything, anywhere),
		schema("global-default", "global-default", 9900, user, everybody, anything, anywhere),
	}
}

// bootstrapMeta says that the server keeps the object as its version has it, until
// somebody takes the annotation away.
func bootstrapMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}}
}

// resources in every namespace.
func resources(group, resource string, cluster bool, verbs ...string) flowcontrolv1.ResourcePolicyRule {
	return flowcontrolv1.ResourcePolicyRule{
		Verbs: verbs, APIGroups: []string{group}, Resources: []string{resource},
		Namespaces: []string{flowcontrolv1.NamespaceEvery}, ClusterScope: cluster,
	}
}

func groups(names ...string) (out []flowcontrolv1.Subject) {
	for _, n := range names {
		out = append(out, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: n}})
	}
	return out
}

func users(names ...string) (out []flowcontrolv1.Subject) {
	for _, n := range names {
		out = append(out, flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: n}})
	}
	return out
}

// systemAccounts are the service accounts of kube-system.
func systemAccounts() []flowcontrolv1.Subject {
	return []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindServiceAccount,
		ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: metav1.NamespaceSystem, Name: flowcontrolv1.NameAll}}}
}
