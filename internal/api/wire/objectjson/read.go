package objectjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// Read JSON into a pointer to a struct that is zero in all fields that the text has. It
// says whether it could, and then the struct is what sigs.k8s.io/json makes of the
// text, without a word about unknown or repeated fields. Where it could not, something
// is wrong with the text, or it is of a kind that a plan does not know:
// sigs.k8s.io/json has to read it and to say what is wrong. Fields are changed by then,
// but nothing that lies behind them.
func Read(text []byte, into any) bool {
	v := reflect.ValueOf(into)
	p := pointed(v)
	if p == nil {
		return false
	}
	r := reader{text: text}
	if !p.read(&r, v.UnsafePointer()) {
		return false
	}
	r.space()
	return r.at == len(r.text)
}

// ReadAny is Read of JSON of any kind: whole numbers are int64, others float64.
func ReadAny(text []byte) (v any, ok bool) {
	r := reader{text: text}
	v, ok = r.any()
	r.space()
	return v, ok && r.at == len(r.text)
}

// ReadTree is ReadAny, but numbers stay as they are written (json.Number).
func ReadTree(text []byte) (v any, ok bool) {
	r := reader{text: text, tree: true}
	v, ok = r.any()
	r.space()
	return v, ok && r.at == len(r.text)
}

// deepest nesting that is read here.
const deepest = 500

type reader struct {
	text  []byte
	at    int
	depth int
	tree  bool // numbers stay as they are written
}

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\n', '\t', '\r':
			r.at++
		default:
			return
		}
	}
}

// next byte that is no space, 0 at the end.
func (r *reader) next() byte {
	r.space()
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

// take the next byte that is no space if it is c.
func (r *reader) take(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) word(s string) bool {
	if len(r.text)-r.at < len(s) || string(r.text[r.at:r.at+len(s)]) != s {
		return false
	}
	r.at += len(s)
	return true
}

// null takes the word. What it is read into is zero, and stays so.
func (r *reader) null() bool { return r.next() == 'n' && r.word("null") }

// quoted takes a string and returns it with its quotes; plain says that it has no
// escapes.
func (r *reader) quoted() (text []byte, plain, ok bool) {
	if r.next() != '"' {
		return nil, false, false
	}
	begin, plain, ascii := r.at, true, true
	for i := r.at + 1; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case c == '"':
			r.at = i + 1
			text = r.text[begin:r.at]
			return text, plain, ascii || utf8.Valid(text)
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return nil, false, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, false, false
}

func (r *reader) string() (string, bool) {
	text, plain, ok := r.quoted()
	if !ok {
		return "", false
	}
	if plain {
		return string(text[1 : len(text)-1]), true
	}
	var s string
	return s, json.Unmarshal(text, &s) == nil
}

// number takes a number; whole says that it has neither fraction nor exponent.
func (r *reader) number() (text []byte, whole, ok bool) {
	r.space()
	begin := r.at
	whole = true
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c >= '0' && c <= '9', c == '-':
		case c == '.', c == 'e', c == 'E', c == '+':
			whole = false
		default:
			text = r.text[begin:r.at]
			return text, whole, good(text)
		}
		r.at++
	}
	return nil, false, false // nothing that is read here ends in a number
}

// good says whether a number is JSON's as far as strconv takes more than that.
func good(text []byte) bool {
	if len(text) > 0 && text[0] == '-' {
		text = text[1:]
	}
	digit := func(i int) bool { return i < len(text) && text[i] >= '0' && text[i] <= '9' }
	if dot := bytes.IndexByte(text, '.'); dot >= 0 && !digit(dot+1) {
		return false
	}
	return digit(0) && (text[0] != '0' || !digit(1))
}

// object takes an object; each takes the value of a key.
func (r *reader) object(each func(key []byte) bool) bool {
	if r.depth++; r.depth > deepest || !r.take('{') {
		return false
	}
	defer func() { r.depth-- }()
	if r.take('}') {
		return true
	}
	for {
		key, plain, ok := r.quoted()
		if !ok || !plain || !r.take(':') || !each(key[1:len(key)-1]) {
			return false
		}
		if r.take('}') {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

// array takes an array; each takes an element.
func (r *reader) array(each func(i int) bool) bool {
	if r.depth++; r.depth > deepest || !r.take('[') {
		return false
	}
	defer func() { r.depth-- }()
	if r.take(']') {
		return true
	}
	for i := 0; ; i++ {
		if !each(i) {
			return false
		}
		if r.take(']') {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

// any takes a value of any kind.
func (r *reader) any() (v any, ok bool) {
	switch r.next() {
	case 'n':
		return nil, r.word("null")
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	case '"':
		return r.string()
	case '{':
		m := map[string]any{}
		return m, r.object(func(key []byte) bool {
			if _, twice := m[string(key)]; twice {
				return false
			}
			v, ok := r.any()
			m[string(key)] = v
			return ok
		})
	case '[':
		l := []any{}
		ok := r.array(func(int) bool {
			v, ok := r.any()
			l = append(l, v)
			return ok
		})
		return l, ok
	}
	text, whole, ok := r.number()
	if !ok {
		return nil, false
	}
	if r.tree {
		return json.Number(text), json.Valid(text)
	}
	if whole {
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return n, true
		}
	}
	f, err := strconv.ParseFloat(string(text), 64)
	return f, err == nil
}
