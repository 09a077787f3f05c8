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
func compact(text []byte) bool { return len(text) > 0 && compactLen(text) == len(text) }

// compactLen is how long such an object at the beginning of a text is; 0 = there is none.
func compactLen(text []byte) int {
	depth, last := 0, byte(':')
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '"':
			if last != '{' && last != ',' {
				return 0
			}
			for i++; i < len(text) && text[i] != '"'; i++ {
				switch c := text[i]; {
				case c == '\\':
					if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
						return 0
					}
				case c >= utf8.RuneSelf || !plain[c]:
					return 0
				}
			}
			if i == len(text) {
				return 0
			}
		case '{':
			if last != ':' {
				return 0
			}
			depth++
		case '}':
			if depth--; depth < 0 || last != '{' && last != '}' {
				return 0
			}
		case ':':
			if last != '"' {
				return 0
			}
		case ',':
			if last != '}' || depth == 0 {
				return 0
			}
		default:
			return 0
		}
		last = c
		if depth == 0 && c == '}' {
			return i + 1
		}
	}
	return 0
}

// Plain says whether AppendString writes a text as it is.
func Plain(text []byte) bool {
	for _, c := range text {
		if c >= utf8.RuneSelf || !plain[c] {
			return false
		}
	}
	return true
}
