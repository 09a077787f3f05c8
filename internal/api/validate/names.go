package validate

import (
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The functions of the shape func(string) []string say why a value is not
// good, nil = it is; those with prefix fit Kind.ValidName, where prefix is true
// for a generateName.

// Subdomain is a DNS-1123 subdomain (RFC 1123): most objects' names.
func Subdomain(s string) []string {
	if isSubdomain(s) {
		return nil
	}
	return validation.IsDNS1123Subdomain(s)
}

// Label is a DNS-1123 label: namespaces, containers, volumes.
func Label(s string) []string {
	if isLabel(s) {
		return nil
	}
	return validation.IsDNS1123Label(s)
}

// Label1035 is a DNS-1035 label, which begins with a letter: older Services.
func Label1035(s string) []string {
	if isLabel(s) && (s[0] < '0' || s[0] > '9') {
		return nil
	}
	return validation.IsDNS1035Label(s)
}

// QualifiedName is a label key: [subdomain/]name.
func QualifiedName(s string) []string {
	if isQualifiedName(s) {
		return nil
	}
	return validation.IsQualifiedName(s)
}

// LabelValue is a label's value; it may be empty.
func LabelValue(s string) []string {
	if s == "" || len(s) <= 63 && isNamePart(s) {
		return nil
	}
	return validation.IsValidLabelValue(s)
}

// SubdomainName, LabelName and Label1035Name are for Kind.ValidName.
func SubdomainName(name string, prefix bool) []string { return Subdomain(unprefix(name, prefix)) }

// LabelName is a Kind.ValidName for DNS-1123 labels.
func LabelName(name string, prefix bool) []string { return Label(unprefix(name, prefix)) }

// Label1035Name is a Kind.ValidName for DNS-1035 labels.
func Label1035Name(name string, prefix bool) []string { return Label1035(unprefix(name, prefix)) }

// PathSegmentName is a Kind.ValidName for names that need only fit into a URL:
// RBAC's ("system:node").
func PathSegmentName(name string, prefix bool) []string {
	var why []string
	if !prefix && (name == "." || name == "..") {
		return []string{"may not be '" + name + "'"}
	}
	for _, bad := range []string{"/", "%"} {
		if strings.Contains(name, bad) {
			why = append(why, "may not contain '"+bad+"'")
		}
	}
	return why
}

// A generateName may end in a dash: something will follow it.
func unprefix(name string, prefix bool) string {
	if prefix && len(name) > 1 && name[len(name)-1] == '-' {
		return name[:len(name)-2] + "a"
	}
	return name
}

func lowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !lowerOrDigit(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

func isSubdomain(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	edge := true // a letter or digit has to follow
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case lowerOrDigit(c):
			edge = false
		case c == '-' && !edge:
		case c == '.' && !edge && s[i-1] != '-':
			edge = true
		default:
			return false
		}
	}
	return !edge && s[len(s)-1] != '-'
}

// isNamePart: letters, digits and -_. within, a letter or digit at either end.
func isNamePart(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case lowerOrDigit(c), 'A' <= c && c <= 'Z':
		case c == '-' || c == '_' || c == '.':
			if i == 0 || i == len(s)-1 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func isQualifiedName(s string) bool {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return isSubdomain(s[:i]) && len(s)-i-1 <= 63 && isNamePart(s[i+1:])
	}
	return len(s) <= 63 && isNamePart(s)
}

// The messages of apimachinery that more than one check uses.
const (
	NotNegative = apivalidation.IsNegativeErrorMsg
	IsImmutable = apivalidation.FieldImmutableErrorMsg
)
