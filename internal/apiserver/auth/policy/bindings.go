package policy

// bindings of the bootstrap roles. A subject is "user:NAME", "group:NAME" or "sa:NAMESPACE:NAME".
func bindings() []binding {
	return []binding{
		{name: "cluster-admin", role: "cluster-admin", subjects: []string{"group:system:masters"}},
		{name: "system:basic-user", role: "system:basic-user", subjects: []string{"group:system:authenticated"}},
		{name: "system:discovery", role: "system:discovery", subjects: []string{"group:system:authenticated"}},
		{name: "system:kube-controller-manager", role: "system:kube-controller-manager", subjects: []string{"user:system:kube-controller-manager"}},
		{name: "system:kube-dns", role: "system:kube-dns", subjects: []string{"sa:kube-system:kube-dns"}},
		{name: "system:kube-scheduler", role: "system:kube-scheduler", subjects: []string{"user:system:kube-scheduler"}},
		{name: "system:monitoring", role: "system:monitoring", subjects: []string{"group:system:monitoring"}},
		{name: "system:node", role: "system:node", subjects: []string{}},
		{name: "system:node-proxier", role: "system:node-proxier", subjects: []string{"user:system:kube-proxy"}},
		{name: "system:proa:network", role: "system:proa:network", subjects: []string{"group:system:proa:network"}},
		{name: "system:public-info-viewer", role: "system:public-info-viewer", subjects: []string{"group:system:authenticated", "group:system:unauthenticated"}},
		{name: "system:service-account-issuer-discovery", role: "system:service-account-issuer-discovery", subjects: []string{"group:system:serviceaccounts"}},
		{name: "system:volume-scheduler", role: "system:volume-scheduler", subjects: []string{"user:system:kube-scheduler"}},
		{name: "system:controller:bootstrap-signer", namespace: "kube-public", role: "Role/system:controller:bootstrap-signer", subjects: []string{"sa:kube-system:bootstrap-signer"}},
		{name: "system::extension-apiserver-authentication-reader", namespace: "kube-system", role: "Role/extension-apiserver-authentication-reader", subjects: []string{"user:system:kube-controller-manager", "user:system:kube-scheduler"}},
		{name: "system::leader-locking-kube-controller-manager", namespace: "kube-system", role: "Role/system::leader-locking-kube-controller-manager", subjects: []string{"user:system:kube-controller-manager", "sa:kube-system:kube-controller-manager", "sa:kube-system:leader-election-controller"}},
		{name: "system::leader-locking-kube-scheduler", namespace: "kube-system", role: "Role/system::leader-locking-kube-scheduler", subjects: []string{"user:system:kube-scheduler", "sa:kube-system:kube-scheduler"}},
		{name: "system:controller:bootstrap-signer", namespace: "kube-system", role: "Role/system:controller:bootstrap-signer", subjects: []string{"sa:kube-system:bootstrap-signer"}},
		{name: "system:controller:cloud-provider", namespace: "kube-system", role: "Role/system:controller:cloud-provider", subjects: []string{"sa:kube-system:cloud-provider"}},
		{name: "system:controller:token-cleaner", namespace: "kube-system", role: "Role/system:controller:token-cleaner", subjects: []string{"sa:kube-system:token-cleaner"}},
	}
}
