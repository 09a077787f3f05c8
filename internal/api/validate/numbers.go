package validate

import (
	"strconv"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// NotBelowZero requires n ≥ 0.
func NotBelowZero[T ~int | ~int32 | ~int64](e *Errs, n T, p *Path) {
	if n < 0 {
		e.Invalid(p, int64(n), NotNegative)
	}
}

// AboveZero requires n > 0.
func AboveZero[T ~int | ~int32 | ~int64](e *Errs, n T, p *Path) {
	if n <= 0 {
		e.Invalid(p, int64(n), "must be greater than 0")
	}
}

// Range requires low ≤ n ≤ high.
func Range[T ~int | ~int32 | ~int64](e *Errs, n, low, high T, p *Path) {
	if n < low || n > high {
		e.Invalid(p, n, validation.InclusiveRangeError(int(low), int(high)))
	}
}

// Port requires a port number, 1 to 65535.
func Port(e *Errs, n int32, p *Path) {
	if n < 1 || n > 65535 {
		e.Invalid(p, int(n), validation.InclusiveRangeError(1, 65535))
	}
}

// PortName requires an IANA service name (RFC 6335), lower case.
func PortName(e *Errs, name string, p *Path) {
	if why := validation.IsValidPortName(name); why != nil {
		e.Invalids(p, name, why)
	}
}

// PortOrName requires a port number or the name of a port.
func PortOrName(e *Errs, v intstr.IntOrString, p *Path) {
	switch v.Type {
	case intstr.String:
		PortName(e, v.StrVal, p)
	case intstr.Int:
		Port(e, v.IntVal, p)
	default:
		e.Invalid(p, v, "unknown type "+strconv.Itoa(int(v.Type)))
	}
}

// CountOrPercent requires a count ≥ 0 or a percentage ("25%").
func CountOrPercent(e *Errs, v intstr.IntOrString, p *Path) {
	switch v.Type {
	case intstr.String:
		if why := validation.IsValidPercent(v.StrVal); why != nil {
			e.Invalids(p, v, why)
		}
	case intstr.Int:
		NotBelowZero(e, v.IntVal, p)
	default:
		e.Invalid(p, v, "must be an integer or percentage (e.g '5%%')")
	}
}

// NotAbove100Percent requires a percentage, if v is one, to be at most 100%.
func NotAbove100Percent(e *Errs, v intstr.IntOrString, p *Path) {
	if n, ok := Percent(v); ok && n > 100 {
		e.Invalid(p, v, "must not be greater than 100%")
	}
}

// Percent is the number of a well-formed percentage.
func Percent(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || validation.IsValidPercent(v.StrVal) != nil {
		return 0, false
	}
	n, err := strconv.Atoi(v.StrVal[:len(v.StrVal)-1])
	return n, err == nil
}
