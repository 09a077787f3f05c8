package core

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/validate"
)

// seen finds duplicates: a handful without a map.
type seen[K comparable] struct {
	few  [8]K
	n    int
	many map[K]struct{}
}

// add is false if k was there already.
func (s *seen[K]) add(k K) bool {
	if s.has(k) {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = k
		s.n++
		return true
	}
	if s.many == nil {
		s.many = map[K]struct{}{}
	}
	s.many[k] = struct{}{}
	return true
}

func (s *seen[K]) has(k K) bool {
	for i := range s.n {
		if s.few[i] == k {
			return true
		}
	}
	_, there := s.many[k]
	return there
}

func label(e *validate.Errs, s string, p *validate.Path) {
	if why := validate.Label(s); why != nil {
		e.Invalids(p, s, why)
	}
}

// subdomain checks an optional name.
func subdomain(e *validate.Errs, s string, p *validate.Path) {
	if s != "" {
		requiredSubdomain(e, s, p)
	}
}

func requiredSubdomain(e *validate.Errs, s string, p *validate.Path) {
	if why := validate.Subdomain(s); why != nil {
		e.Invalids(p, s, why)
	}
}

// ip checks an address; one that an old object had already may stay as it is.
func ip(e *validate.Errs, s string, old []string, p *validate.Path) {
	e.Add(validation.IsValidIPForLegacyField(p.Field(), s, true, old)...)
}

func cidr(e *validate.Errs, s string, old []string, p *validate.Path) {
	e.Add(validation.IsValidCIDRForLegacyField(p.Field(), s, true, old)...)
}

func noBacksteps(e *validate.Errs, path string, p *validate.Path) {
	if hasBackstep(path) {
		e.Invalid(p, path, "must not contain '..'")
	}
}

func hasBackstep(path string) bool {
	if !strings.Contains(path, "..") {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// descending: relative, and not upwards.
func descending(e *validate.Errs, path string, p *validate.Path) {
	if strings.HasPrefix(path, "/") {
		e.Invalid(p, path, "must be a relative path")
	}
	noBacksteps(e, path, p)
}

// localPath is a file within a volume; names that begin with ".." are the
// kubelet's.
func localPath(e *validate.Errs, path string, p *validate.Path) {
	descending(e, path, p)
	if strings.HasPrefix(path, "..") && !strings.HasPrefix(path, "../") {
		e.Invalid(p, path, "must not start with '..'")
	}
}

func userID(e *validate.Errs, id *int64, p *validate.Path) {
	if id != nil {
		if why := validation.IsValidUserID(*id); why != nil {
			e.Invalids(p, *id, why)
		}
	}
}

func groupID(e *validate.Errs, id int64, p *validate.Path) {
	if why := validation.IsValidGroupID(id); why != nil {
		e.Invalids(p, id, why)
	}
}

func isTrue(b *bool) bool { return b != nil && *b }
