package images

import (
	"context"
	"io/fs"
	"os/exec"
	"strings"
)

// base is a small system: busybox for /bin/sh and the usual commands.
func base(ctx context.Context, busybox string) (Tree, error) {
	t := Tree{}
	t.Dir(0o755, "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "etc", "home", "var/run", "var/log",
		"dev", "proc", "sys", "mnt", "run")
	t.Dir(0o700, "root")
	t.Dir(0o777|fs.ModeSticky, "tmp", "var/tmp")
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		t.Link(dir, "usr/"+dir)
	}
	t.File(0o755, "bin/busybox", busybox)
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return nil, err
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			t.Link("bin/"+a, "/bin/busybox")
		}
	}
	t.Text("etc/passwd", passwd)
	t.Text("etc/group", group)
	t.Text("etc/shadow", "root:*:::::::\nnobody:*:::::::\n")
	t.Text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
	// The ImageVolume test looks for the words "Alpine Linux" here, to see that
	// the image's own files are mounted.
	t.Text("etc/os-release", "PRETTY_NAME=\"Test image, stands in for one based on Alpine Linux\"\nID=conformance\n")
	return t, nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group  = "root:x:0:\ntty:x:5:\nnobody:x:65534:\n"
)

// tools are what upstream's agnhost image adds to its base system, with the user
// and groups that a test of supplemental groups looks up.
func tools(d *debian) (Tree, error) {
	t := Tree{}
	err := d.take(t, "/bin/bash", "/usr/bin/curl", "/usr/bin/dig", "/usr/bin/nslookup", "/usr/bin/host", "/bin/nc.openbsd",
		"/bin/ip", "/bin/ss", "/usr/bin/getent", "/usr/bin/iperf", "/usr/bin/ipcs", "/usr/bin/nsenter", "/usr/bin/ping", "/sbin/tc")
	t.Link("bin/nc", "nc.openbsd")
	t.Text("etc/passwd", passwd+"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")
	t.Text("etc/group", group+"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")
	return t, err
}

// nginx with one page, which says who it is.
func nginx(d *debian) (Tree, error) {
	t := Tree{}
	err := d.take(t, "/usr/sbin/nginx")
	t.Dir(0o755, "etc/nginx", "var/log/nginx", "var/lib/nginx", "var/cache/nginx")
	t.Text("etc/passwd", passwd+"nginx:x:101:101:nginx:/nonexistent:/bin/false\n")
	t.Text("etc/group", group+"nginx:x:101:\n")
	t.Text("usr/share/nginx/html/index.html", "<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n")
	t.Text("etc/nginx/nginx.conf", nginxConf)
	return t, err
}
