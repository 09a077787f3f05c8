package openapi

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"sort"
	"strings"
)

//go:generate ../../../tools/openapi/generate.sh

// packed holds the schema of every built-in type, types the same without
// prose, for structured-merge-diff. tools/openapi says how the lines look.
var (
	//go:embed data/definitions.gz
	packed []byte
	//go:embed data/types.txt
	types string
)

// Definition is the schema of one type as JSON: in OpenAPI v3, where it refers
// to others as #/components/schemas/NAME, and in v2 (#/definitions/NAME).
type Definition struct {
	V3, V2 []byte
}

// in gives the text of one OpenAPI version, 2 or 3.
func (d Definition) in(version int) []byte {
	if version == 2 {
		return d.V2
	}
	return d.V3
}

// definitions unpacks all built-in definitions. It takes some 15 ms and 4 MB;
// callers let the result go when they are done.
func definitions() (map[string]Definition, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("embedded definitions: %w", err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("embedded definitions: %w", err)
	}
	defs := make(map[string]Definition, 1200)
	for line := range bytes.Lines(text) {
		name, schemas, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
		v3, v2, ok := bytes.Cut(schemas, []byte("\t"))
		if !ok {
			return nil, fmt.Errorf("embedded definitions: %.40q is no line of three columns", line)
		}
		defs[string(name)] = Definition{V3: v3, V2: v2}
	}
	return defs, nil
}

// reach adds to into the names that name needs in this OpenAPI version, itself
// included, as far as all knows them.
func reach(into map[string]bool, all map[string]Definition, name string, version int) {
	def, known := all[name]
	if !known || into[name] {
		return
	}
	into[name] = true
	mark := []byte(refPrefix(version))
	text := def.in(version)
	for {
		i := bytes.Index(text, mark)
		if i < 0 {
			return
		}
		text = text[i+len(mark):]
		end := bytes.IndexByte(text, '"')
		reach(into, all, string(text[:end]), version)
		text = text[end:]
	}
}

// refPrefix is what stands before a name in a $ref.
func refPrefix(version int) string {
	if version == 2 {
		return "#/definitions/"
	}
	return "#/components/schemas/"
}

// typeLine finds the JSON of a type in types, "" if there is none. The lines
// are sorted, so nothing needs to be read but the few that are asked for.
func typeLine(name string) string {
	// The first offset from which the line that begins there is not below name.
	at := sort.Search(len(types), func(i int) bool { return lineFrom(i) >= name+"\t" })
	line := lineFrom(at)
	if !strings.HasPrefix(line, name+"\t") {
		return ""
	}
	return line[len(name)+1:]
}

// lineFrom is the first whole line at or after offset i of types, "\xff" when
// there is none, which sorts last.
func lineFrom(i int) string {
	if i > 0 && types[i-1] != '\n' {
		next := strings.IndexByte(types[i:], '\n')
		if next < 0 {
			return "\xff"
		}
		i += next + 1
	}
	if i >= len(types) {
		return "\xff"
	}
	line, _, _ := strings.Cut(types[i:], "\n")
	return line
}
