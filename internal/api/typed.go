package api

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions below let a descriptor name functions on its own Go type where
// Kind has functions on Object. An absent old object becomes T's zero (nil).

// Of adapts a function that changes one object: Default.
func Of[T Object](f func(T)) func(Object) {
	return func(obj Object) { f(obj.(T)) }
}

// Resets adapts Kind.Reset.
func Resets[T Object](f func(obj, old T, sub string)) func(obj, old Object, sub string) {
	return func(obj, old Object, sub string) {
		o, _ := old.(T)
		f(obj.(T), o, sub)
	}
}

// Validates adapts Kind.Validate.
func Validates[T Object](f func(obj, old T, sub string) field.ErrorList) func(obj, old Object, sub string) field.ErrorList {
	return func(obj, old Object, sub string) field.ErrorList {
		o, _ := old.(T)
		return f(obj.(T), o, sub)
	}
}

// Warns adapts Kind.Warn.
func Warns[T Object](f func(obj, old T) []string) func(obj, old Object) []string {
	return func(obj, old Object) []string {
		o, _ := old.(T)
		return f(obj.(T), o)
	}
}

// Rows adapts Kind.Row.
func Rows[T Object](f func(T) []any) func(Object) []any {
	return func(obj Object) []any { return f(obj.(T)) }
}

// FieldsOf adapts Kind.Fields.
func FieldsOf[T Object](f func(T) fields.Set) func(Object) fields.Set {
	return func(obj Object) fields.Set { return f(obj.(T)) }
}

// IndexOf adapts one of Kind.Indexes.
func IndexOf[T Object](f func(T) []string) func(Object) []string {
	return func(obj Object) []string { return f(obj.(T)) }
}
