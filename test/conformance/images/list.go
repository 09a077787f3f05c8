package images

// list of the images that tests marked Conformance use, as upstream's
// test/utils/image names them.
func list() []Image {
	const e2e = "registry.k8s.io/e2e-test-images/"
	agnhost := Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, WorkingDir: "/"}
	pet := Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}, WorkingDir: "/"}
	web := Config{Cmd: []string{"nginx", "-g", "daemon off;"}}
	shell := Config{Cmd: []string{"sh"}}
	return []Image{
		{e2e + "busybox:1.37.0-1", shell, []string{"base"}},
		{e2e + "busybox:1.36.1-1", shell, []string{"base"}},
		{e2e + "nonroot:1.5", Config{User: "1234", Cmd: []string{"/bin/sh"}}, []string{"base"}},
		{e2e + "nonewprivs:1.4", Config{Cmd: []string{"nnp"}}, []string{"base", "nnp"}},
		{e2e + "agnhost:2.63.0", agnhost, []string{"base", "tools", "agnhost"}},
		{e2e + "agnhost:2.55", agnhost, []string{"base", "tools", "agnhost"}},
		{e2e + "glibc-dns-testing:2.0.0", Config{Cmd: []string{"bash"}}, []string{"base", "tools"}},
		{e2e + "kitten:1.8", pet, []string{"base", "tools", "agnhost", "kitten"}},
		{e2e + "nautilus:1.8", pet, []string{"base", "tools", "agnhost", "nautilus"}},
		// Two tags with one content: the tests tell them apart by their names.
		{e2e + "nginx:1.27-0", web, []string{"base", "nginx"}},
		{e2e + "nginx:1.15-4", web, []string{"base", "nginx"}},
		// At the version of the suite, under the tag that the tests ask for.
		{e2e + "sample-apiserver:1.29.2", Config{Entrypoint: []string{"/sample-apiserver"}}, []string{"base", "sample-apiserver"}},
		{"registry.k8s.io/etcd:3.6.8-0", Config{Cmd: []string{"/usr/local/bin/etcd"}}, []string{"base", "etcd"}},
		{"registry.k8s.io/pause:3.10.2", Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, []string{"pause"}},
	}
}
