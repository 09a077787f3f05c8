package image

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestWithTag(t *testing.T) {
	for in, want := range map[string]string{
		"busybox": "busybox:latest", "busybox:1": "busybox:1", "host:5000/a/b": "host:5000/a/b:latest",
		"a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": "a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	} {
		if got, err := WithTag(in); err != nil || got != want {
			t.Errorf("%s gives %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"Busy Box", "a::b", "weather:1:latest"} {
		if got, err := WithTag(bad); err == nil {
			t.Errorf("%q is taken for %q", bad, got)
		}
	}
}

func TestCredentials(t *testing.T) {
	s := &v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(`{"auths":{
		"https://index.docker.io/v1/":{"auth":"aHViOnB3"}, "*.example.com":{"username":"wild"}, "reg.example.com/team":{"username":"team"}}}`)}}
	for image, want := range map[string][]string{
		"busybox": {"hub"}, "docker.io/x/y:1": {"hub"}, "reg.example.com/team/app": {"team", "wild"}, "reg.example.com/other": {"wild"}, "quay.io/x": {""},
	} {
		got := credentials(image, []*v1.Secret{s})
		if len(got) != len(want) {
			t.Errorf("%s: %v, want %v", image, got, want)
			continue
		}
		for i := range want {
			if got[i].GetUsername() != want[i] {
				t.Errorf("%s: %v, want %v", image, got, want)
			}
		}
	}
}

func TestShort(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		fs   FsInfo
		want bool
	}{
		"half empty":                          {FsInfo{Capacity: 100 * gib, Available: 50 * gib, Inodes: 100, InodesFree: 50}, false},
		"a small disk, nearly full":           {FsInfo{Capacity: 32 * gib, Available: 4 * gib}, true},
		"a small disk with room":              {FsInfo{Capacity: 32 * gib, Available: 5 * gib}, false},
		"a large disk with little of it free": {FsInfo{Capacity: 1000 * gib, Available: 20 * gib}, false},
		"a large disk, nearly full":           {FsInfo{Capacity: 1000 * gib, Available: 15 * gib}, true},
		"no inodes":                           {FsInfo{Capacity: 100 * gib, Available: 50 * gib, Inodes: 100, InodesFree: 4}, true},
		"a file system without inodes":        {FsInfo{Capacity: 100 * gib, Available: 50 * gib}, false},
		"nothing is known":                    {FsInfo{}, false},
	} {
		if why, got := c.fs.Short(15); got != c.want || got == (why == "") {
			t.Errorf("%s: %v, %q", name, got, why)
		}
	}
}
