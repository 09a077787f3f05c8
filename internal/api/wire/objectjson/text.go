package objectjson

import "unicode/utf8"

// AppendString appends a string as encoding/json writes it, with what HTML minds
// escaped.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, '\\', 'b')
			case '\f':
				dst = append(dst, '\\', 'f')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(append(dst, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029': // line ends of JavaScript
			dst = append(append(dst, s[start:i]...), '\\', 'u', '2', '0', '2', hex[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"')
}

// plain are the characters of ASCII that stand in a string as they are.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// compact says whether text is an object of nothing but such objects, as managed
// fields are, and encoding/json would write it as it is.
func compact(text []byte) bool {
	depth, last := 0, byte(':')
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '"':
			if last != '{' && last != ',' {
				return false
			}
			for i++; i < len(text) && text[i] != '"'; i++ {
				switch c := text[i]; {
				case c == '\\':
					if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
						return false
					}
				case c >= utf8.RuneSelf || !plain[c]:
					return false
				}
			}
			if i == len(text) {
				return false
			}
		case '{':
			if last != ':' {
				return false
			}
			depth++
		case '}':
			if depth--; depth < 0 || last != '{' && last != '}' {
				return false
			}
		case ':':
			if last != '"' {
				return false
			}
		case ',':
			if last != '}' || depth == 0 {
				return false
			}
		default:
			return false
		}
		last = c
		if depth == 0 && c == '}' {
			return i == len(text)-1
		}
	}
	return false
}
