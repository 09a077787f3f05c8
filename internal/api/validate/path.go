// Package validate holds the checks that all kinds share: names, labels,
// selectors, ports, metadata; and the list that collects what is wrong.
//
// A good object costs next to nothing: paths are links on the caller's stack
// that become text only in an error, and names are checked byte by byte. Only
// what has failed is handed to apimachinery, whose words clients know.
package validate

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Path is where in an object a check looks: like field.Path, but made on the
// stack, and turned into a field.Path only when there is an error to report.
// Do not keep one: the compiler would move it to the heap.
type Path struct {
	up   *Path
	name string
	at   int
	kind step
}

type step uint8

const (
	isChild step = iota
	isIndex
	isKey
)

// Root starts a path: Root("spec").
func Root(name string) *Path { return &Path{name: name} }

// Child is the field name below p.
func (p *Path) Child(name string) *Path { return &Path{up: p, name: name} }

// Index is p[i].
func (p *Path) Index(i int) *Path { return &Path{up: p, at: i, kind: isIndex} }

// Key is p[key].
func (p *Path) Key(key string) *Path { return &Path{up: p, name: key, kind: isKey} }

// Field is the path in apimachinery's form. A nil path gives nil.
func (p *Path) Field() *field.Path {
	if p == nil {
		return nil
	}
	// The clone keeps p on its maker's stack: what Field returns must not
	// reach into it.
	switch p.kind {
	case isIndex:
		return p.up.Field().Index(p.at)
	case isKey:
		return p.up.Field().Key(strings.Clone(p.name))
	default:
		if p.up == nil {
			return field.NewPath(strings.Clone(p.name))
		}
		return p.up.Field().Child(strings.Clone(p.name))
	}
}

func (p *Path) String() string { return p.Field().String() }
