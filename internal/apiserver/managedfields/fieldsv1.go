package managedfields

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// appendSet writes a set as FieldsV1.
func appendSet(b []byte, s *set) []byte { return appendNode(b, s, false) }

func appendNode(b []byte, s *set, self bool) []byte {
	b = append(b, '{')
	if self {
		b = append(b, `".":{}`...)
	}
	if s != nil {
		for i, e := range s.elems {
			if self || i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, e.key, false)
			b = append(b, ':')
			b = appendNode(b, e.child, e.member && e.child != nil)
		}
	}
	return append(b, '}')
}

// appendQuoted writes a JSON string as the library writes it: object keys as
// they are, values with what HTML minds escaped.
func appendQuoted(b []byte, s string, html bool) []byte {
	return append(appendEscaped(append(b, '"'), s, html), '"')
}

// appendEscaped is what appendQuoted writes between the quotes.
func appendEscaped[S string | []byte](b []byte, s S, html bool) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			if html {
				r, size := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
				if r == utf8.RuneError && size == 1 {
					b = append(append(b, s[start:i]...), `\ufffd`...)
					i++
					start = i
					continue
				}
				if r == '\u2028' || r == '\u2029' {
					b = append(append(b, s[start:i]...), `\u202`...)
					b = append(b, hex[r&0xf])
					i += size
					start = i
					continue
				}
				i += size
				continue
			}
			i++
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && (!html || c != '<' && c != '>' && c != '&') {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
		start = i
	}
	return append(b, s[start:]...)
}

// parseSet reads FieldsV1.
func parseSet(raw []byte) (*set, error) {
	p := parser{text: strings.ToValidUTF8(string(raw), "\ufffd")} // as whoever reads JSON does
	s, _, err := p.node(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, p.wrong("the end")
	}
	return s, nil
}

// parser keeps what it makes in few pieces: keys are parts of the text, nodes and
// elements lie beside each other.
type parser struct {
	text  string
	at    int
	stack []elem // of the nodes that are being read
	elems []elem // room for those that have been
	sets  []set
}

// push adds an element to the node whose elements begin at base.
func (p *parser) push(base int, e elem) {
	top := p.stack[base:]
	if n := len(top); n > 0 && top[n-1].key >= e.key { // not as we write it
		s := set{elems: append([]elem(nil), top...)}
		at := s.at(e.key)
		at.member = at.member || e.member
		if e.child != nil {
			at.child = e.child
		}
		p.stack = append(p.stack[:base], s.elems...)
		return
	}
	p.stack = append(p.stack, e)
}

// pop makes a set of the elements from base on, nil if there are none.
func (p *parser) pop(base int) *set {
	n := len(p.stack) - base
	if n == 0 {
		return nil
	}
	if len(p.elems) < n {
		p.elems = make([]elem, max(n, 64))
	}
	if len(p.sets) == 0 {
		p.sets = make([]set, 16)
	}
	s := &p.sets[0]
	s.elems = p.elems[:n:n]
	copy(s.elems, p.stack[base:])
	p.sets, p.elems, p.stack = p.sets[1:], p.elems[n:], p.stack[:base]
	return s
}

// node reads one object: what is below, and whether the node itself is a member.
func (p *parser) node(depth int) (*set, bool, error) {
	if depth > 1000 {
		return nil, false, errors.New("nested too deeply")
	}
	if p.space(); !p.next('{') {
		if strings.HasPrefix(p.text[p.at:], "null") {
			p.at += 4
			return nil, true, nil
		}
		return nil, false, p.wrong("an object")
	}
	base, self := len(p.stack), false
	if p.space(); p.next('}') {
		return nil, true, nil
	}
	for {
		key, err := p.str()
		if err != nil {
			return nil, false, err
		}
		if p.space(); !p.next(':') {
			return nil, false, p.wrong("a colon")
		}
		child, member, err := p.node(depth + 1)
		if err != nil {
			return nil, false, err
		}
		if key == "." {
			self = true
		} else if key, err = canonical(key); err != nil {
			return nil, false, err
		} else if key != "" {
			p.push(base, elem{key, member, child})
		}
		p.space()
		if p.next('}') {
			break
		}
		if !p.next(',') {
			return nil, false, p.wrong("a comma")
		}
		p.space()
	}
	out := p.pop(base)
	return out, self || out == nil, nil
}

func (p *parser) space() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\n' || p.text[p.at] == '\t' || p.text[p.at] == '\r') {
		p.at++
	}
}

func (p *parser) next(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) wrong(want string) error {
	return fmt.Errorf("fieldsV1: expected %s at byte %d of %.200q", want, p.at, p.text)
}

func (p *parser) str() (string, error) {
	if !p.next('"') {
		return "", p.wrong("a string")
	}
	start, escaped := p.at, false
	for ; p.at < len(p.text); p.at++ {
		switch p.text[p.at] {
		case '\\':
			escaped = true
			p.at++
		case '"':
			body := p.text[start:p.at]
			p.at++
			if !escaped {
				return body, nil
			}
			return unescape(body)
		}
	}
	return "", p.wrong("the end of a string")
}

func unescape(b string) (string, error) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		i++
		if i == len(b) {
			return "", errors.New("fieldsV1: a string ends in an escape")
		}
		switch b[i] {
		case '"', '\\', '/':
			out = append(out, b[i])
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			if i+4 >= len(b) {
				return "", errors.New("fieldsV1: a short escape")
			}
			r, err := strconv.ParseUint(b[i+1:i+5], 16, 16)
			if err != nil {
				return "", fmt.Errorf("fieldsV1: %w", err)
			}
			out = utf8.AppendRune(out, rune(r))
			i += 4
		default:
			return "", fmt.Errorf("fieldsV1: \\%c is no escape", b[i])
		}
	}
	return string(out), nil
}

// canonical brings a path element into the one form in which we write it. ""
// is one of a kind that is not known and is dropped, as upstream does.
func canonical(key string) (string, error) {
	if len(key) < 2 || key[1] != ':' {
		return "", fmt.Errorf("fieldsV1: %q is no path element", key)
	}
	if key[0] == 'f' || plainKey(key) {
		return key, nil
	}
	pe, err := fieldpath.DeserializePathElement(key)
	if errors.Is(err, fieldpath.ErrUnknownPathElementType) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("fieldsV1: %q: %w", key, err)
	}
	return fieldpath.SerializePathElement(pe)
}

// plainKey says that a key element is certainly canonical: one field with a
// string, without anything that could be written in two ways.
func plainKey(key string) bool {
	const head = `k:{"`
	if len(key) < len(head) || key[:len(head)] != head {
		return false
	}
	quotes := 0
	for i := len(head) - 1; i < len(key)-1; i++ {
		switch c := key[i]; {
		case c == '"':
			quotes++
			if quotes == 2 && (key[i+1] != ':' || i+2 >= len(key) || key[i+2] != '"') || quotes == 4 && i != len(key)-2 {
				return false
			}
		case c == '\\' || c < ' ' || c >= utf8.RuneSelf || c == '<' || c == '>' || c == '&':
			return false
		}
	}
	return quotes == 4 && key[len(key)-1] == '}'
}
