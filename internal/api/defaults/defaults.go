// Package defaults holds what the descriptors' Default functions have in common.
package defaults

// Ptr gives an optional field that is not set a value.
func Ptr[T any](at **T, v T) {
	if *at == nil {
		*at = &v
	}
}

// Zero gives a field that is empty a value.
func Zero[T comparable](at *T, v T) {
	var zero T
	if *at == zero {
		*at = v
	}
}
