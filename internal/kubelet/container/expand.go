package container

import "strings"

// Expand replaces $(NAME) by what lookup says; $$ stands for $, and names that
// are not known stay as they are written.
func Expand(s string, lookup func(string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i+2:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			name := s[i+2 : i+2+end]
			if v, ok := lookup(name); ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += 2 + end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// expandAll strings; env is what is known.
func expandAll(list []string, env map[string]string) []string {
	var out []string
	for _, s := range list {
		out = append(out, Expand(s, func(n string) (string, bool) { v, ok := env[n]; return v, ok }))
	}
	return out
}
