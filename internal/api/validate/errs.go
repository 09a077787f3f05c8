package validate

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Errs collects what is wrong with an object. Its zero value is ready; what
// Kind.Validate returns is List().
type Errs struct{ list field.ErrorList }

// List of all errors so far, nil if there are none.
func (e *Errs) List() field.ErrorList { return e.list }

// Len is the number of errors so far.
func (e *Errs) Len() int { return len(e.list) }

// Add takes over errors that another package has found.
func (e *Errs) Add(list ...*field.Error) { e.list = append(e.list, list...) }

// Required: the field must be given.
func (e *Errs) Required(p *Path, detail string) {
	e.list = append(e.list, field.Required(p.Field(), detail))
}

// Invalid: the value is malformed.
func (e *Errs) Invalid(p *Path, value any, detail string) {
	e.list = append(e.list, field.Invalid(p.Field(), value, detail))
}

// Invalids reports one Invalid for each message.
func (e *Errs) Invalids(p *Path, value any, details []string) {
	for _, d := range details {
		e.Invalid(p, value, d)
	}
}

// Forbidden: the field may not be set, or not now.
func (e *Errs) Forbidden(p *Path, detail string) {
	e.list = append(e.list, field.Forbidden(p.Field(), detail))
}

// Duplicate: the value must be unique and is not.
func (e *Errs) Duplicate(p *Path, value any) {
	e.list = append(e.list, field.Duplicate(p.Field(), value))
}

// NotFound: the value refers to nothing.
func (e *Errs) NotFound(p *Path, value any) {
	e.list = append(e.list, field.NotFound(p.Field(), value))
}

// TooLong: more than limit bytes.
func (e *Errs) TooLong(p *Path, limit int) {
	e.list = append(e.list, field.TooLong(p.Field(), "", limit))
}

// TooMany: a list of n items where limit are allowed.
func (e *Errs) TooMany(p *Path, n, limit int) {
	e.list = append(e.list, field.TooMany(p.Field(), n, limit))
}

// NotSupported: the value is none of the supported ones. A function, as methods
// have no type parameters.
func NotSupported[T ~string](e *Errs, p *Path, value any, supported ...T) {
	e.list = append(e.list, field.NotSupported(p.Field(), value, supported))
}

// OneOf requires value to be one of supported.
func OneOf[T ~string](e *Errs, p *Path, value T, supported ...T) {
	for _, s := range supported {
		if s == value {
			return
		}
	}
	NotSupported(e, p, value, append([]T(nil), supported...)...)
}

// RequiredOneOf is OneOf, where "" is Required.
func RequiredOneOf[T ~string](e *Errs, p *Path, value T, supported ...T) {
	if value == "" {
		e.Required(p, "")
		return
	}
	OneOf(e, p, value, supported...)
}

// Immutable requires now to equal old (semantically: nil equals empty).
func (e *Errs) Immutable(p *Path, now, old any) {
	if !apiequality.Semantic.DeepEqual(old, now) {
		e.Invalid(p, now, apivalidation.FieldImmutableErrorMsg)
	}
}
