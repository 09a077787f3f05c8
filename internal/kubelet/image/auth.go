package image

import (
	"encoding/base64"
	"encoding/json"
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type login struct {
	Username, Password, Auth, IdentityToken, RegistryToken string
}

// credentials to try for an image, the most specific first; nil, which is
// anonymous, when no secret is for its registry.
func credentials(image string, secrets []*v1.Secret) []*cri.AuthConfig {
	repo := repository(image)
	type match struct {
		key string
		cfg *cri.AuthConfig
	}
	var found []match
	for _, s := range secrets {
		for key, l := range logins(s) {
			if k := registry(key); matches(k, repo) {
				found = append(found, match{k, l.config(key)})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return len(b.key) - len(a.key) })
	var list []*cri.AuthConfig
	for _, f := range found {
		list = append(list, f.cfg)
	}
	if len(list) == 0 {
		return []*cri.AuthConfig{nil}
	}
	return list
}

func logins(s *v1.Secret) map[string]login {
	all := map[string]login{}
	switch s.Type {
	case v1.SecretTypeDockerConfigJson:
		var f struct{ Auths map[string]login }
		_ = json.Unmarshal(s.Data[v1.DockerConfigJsonKey], &f) // what cannot be read has no logins
		all = f.Auths
	case v1.SecretTypeDockercfg:
		_ = json.Unmarshal(s.Data[v1.DockerConfigKey], &all)
	}
	return all
}

func (l login) config(server string) *cri.AuthConfig {
	if b, err := base64.StdEncoding.DecodeString(l.Auth); err == nil && l.Username == "" {
		l.Username, l.Password, _ = strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
	}
	return &cri.AuthConfig{Username: l.Username, Password: l.Password, IdentityToken: l.IdentityToken, RegistryToken: l.RegistryToken, ServerAddress: server}
}

// registry and path of a key in a docker config: without scheme and API version.
func registry(key string) string {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		rest = key
	}
	rest = strings.TrimRight(rest, "/")
	for _, v := range []string{"/v1", "/v2"} {
		rest = strings.TrimSuffix(rest, v)
	}
	if rest == "docker.io" {
		return "index.docker.io"
	}
	return rest
}

// repository of an image with its registry, without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	host, rest, ok := strings.Cut(image, "/")
	switch {
	case !ok:
		return "index.docker.io/library/" + image
	case host == "docker.io":
		return "index.docker.io/" + rest
	case strings.ContainsAny(host, ".:") || host == "localhost":
		return image
	}
	return "index.docker.io/" + image
}

// matches a key, whose host may have wildcards per label, to a repository.
func matches(key, repo string) bool {
	keyHost, keyPath, _ := strings.Cut(key, "/")
	host, rest, _ := strings.Cut(repo, "/")
	if keyPath != "" && rest != keyPath && !strings.HasPrefix(rest, keyPath+"/") {
		return false
	}
	a, b := strings.Split(keyHost, "."), strings.Split(host, ".")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if ok, err := path.Match(a[i], b[i]); !ok || err != nil {
			return false
		}
	}
	return true
}
