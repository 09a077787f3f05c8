package oidc

import (
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	apiservercel "k8s.io/apiserver/pkg/cel"

	"github.com/proa-dev/proa/internal/apiserver/request"
)

const celTrue = types.True

// mapValue is a JSON object for expressions.
func mapValue(m map[string]any) traits.Mapper { return value(m).(traits.Mapper) }

// userValue is a user for expressions, as a UserInfo.
func userValue(u *request.User) traits.Mapper {
	return mapValue(map[string]any{"username": u.Name, "uid": u.UID, "groups": u.Groups, "extra": u.Extra})
}

// value for expressions. Claims are often called something that is no name in
// CEL, such as "example.com/role": they may be written as Kubernetes escapes them,
// claims.example__dot__com__slash__role, however deep they are.
func value(v any) ref.Val { return escaping(types.DefaultTypeAdapter.NativeToValue(v)) }

func escaping(v ref.Val) ref.Val {
	switch v := v.(type) {
	case traits.Mapper:
		return &escapedMap{v}
	case traits.Lister:
		return &escapedList{v}
	}
	return v
}

type escapedMap struct{ traits.Mapper }

// Find implements traits.Mapper.
func (m *escapedMap) Find(key ref.Val) (ref.Val, bool) {
	if name, ok := key.(types.String); ok {
		if plain, ok := apiservercel.Unescape(string(name)); ok {
			key = types.String(plain)
		}
	}
	v, ok := m.Mapper.Find(key)
	return escaping(v), ok
}

type escapedList struct{ traits.Lister }

// Get implements traits.Lister.
func (l *escapedList) Get(index ref.Val) ref.Val { return escaping(l.Lister.Get(index)) }
