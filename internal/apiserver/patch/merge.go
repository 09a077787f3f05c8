package patch

import "github.com/proa-dev/proa/internal/api/wire/objectjson"

// merged is a document after a JSON merge patch (RFC 7386), as jsonpatch.MergePatch
// makes it; ok is false where that has to see to it: one of them is no object, or
// something is wrong with it.
func merged(doc, patch []byte) (out []byte, ok bool) {
	from, ok := object(doc, objectjson.ReadTree)
	if !ok {
		return nil, false
	}
	by, ok := object(patch, objectjson.ReadTree)
	if !ok {
		return nil, false
	}
	merge(from, by)
	out, err := objectjson.Marshal(from)
	return out, err == nil
}

func object(text []byte, read func([]byte) (any, bool)) (map[string]any, bool) {
	v, ok := read(text)
	m, isObject := v.(map[string]any)
	return m, ok && isObject
}

func merge(doc, patch map[string]any) {
	for k, v := range patch {
		if v == nil {
			delete(doc, k)
			continue
		}
		cur, isObject := doc[k].(map[string]any)
		change, isChange := v.(map[string]any)
		switch {
		case isObject && isChange:
			merge(cur, change)
		case isObject: // something else in the place of an object stays as it is
			doc[k] = v
		default:
			prune(v)
			doc[k] = v
		}
	}
}

// prune what a patch deletes from what there is nothing to delete from. Elements of
// lists that are null stay.
func prune(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if x == nil {
				delete(v, k)
			} else {
				prune(x)
			}
		}
	case []any:
		for _, x := range v {
			prune(x)
		}
	}
}
