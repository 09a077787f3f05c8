package managedfields

import (
	"reflect"

	"github.com/proa-dev/proa/internal/api"
)

// shallow copies an object so that its TypeMeta can be set; all else is shared.
func shallow(obj api.Object) api.Object {
	c := reflect.New(reflect.TypeOf(obj).Elem())
	c.Elem().Set(reflect.ValueOf(obj).Elem())
	return c.Interface().(api.Object)
}
