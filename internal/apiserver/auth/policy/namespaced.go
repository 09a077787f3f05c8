package policy

// namespacedRoles live in kube-system and kube-public.
func namespacedRoles() []role {
	return []role{
		{
			name:      "system:controller:bootstrap-signer",
			namespace: "kube-public",
			rules: []string{
				"get list watch | core | configmaps",
				"update | core | configmaps | cluster-info",
				"create patch update | core events.k8s.io | events",
			},
		},
		{
			name:      "extension-apiserver-authentication-reader",
			namespace: "kube-system",
			rules: []string{
				"get list watch | core | configmaps | extension-apiserver-authentication",
			},
		},
		{
			name:      "system::leader-locking-kube-controller-manager",
			namespace: "kube-system",
			rules: []string{
				"create get list update watch | coordination.k8s.io | leases",
				"create get list update watch | coordination.k8s.io | leasecandidates",
			},
		},
		{
			name:      "system::leader-locking-kube-scheduler",
			namespace: "kube-system",
			rules: []string{
				"create get list update watch | coordination.k8s.io | leases",
				"create get list update watch | coordination.k8s.io | leasecandidates",
			},
		},
		{
			name:      "system:controller:bootstrap-signer",
			namespace: "kube-system",
			rules: []string{
				"get list watch | core | secrets",
			},
		},
		{
			name:      "system:controller:cloud-provider",
			namespace: "kube-system",
			rules: []string{
				"create get list watch | core | configmaps",
			},
		},
		{
			name:      "system:controller:token-cleaner",
			namespace: "kube-system",
			rules: []string{
				"delete get list watch | core | secrets",
				"create patch update | core events.k8s.io | events",
			},
		},
	}
}
