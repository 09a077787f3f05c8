package share

import (
	"hash/maphash"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// below shares the parts below a value. old is the value in the same place of the
// version before, nil = there is none.
func (s *Parts) below(p *plan, v, old unsafe.Pointer) {
	switch p.form {
	case record:
		for i := range p.fields {
			f := &p.fields[i]
			if !f.parts && f.form != text {
				continue
			}
			var o unsafe.Pointer
			if old != nil {
				o = unsafe.Add(old, f.offset)
			}
			if at := unsafe.Add(v, f.offset); f.parts {
				s.below(f.plan, at, o)
			} else {
				f.string((*string)(at), (*string)(o))
			}
		}
	case pointer:
		to, was := (*unsafe.Pointer)(v), deref(old)
		if *to == nil || *to == was {
			return
		}
		if p.elem.parts {
			s.below(p.elem, *to, was)
		}
		*to = s.pick(p, *to, was, 1, p.elem.size)
	case list:
		l := (*slice)(v)
		if l.len == 0 {
			return
		}
		var was slice
		if old != nil {
			was = *(*slice)(old)
		}
		if l.at == was.at && l.len == was.len {
			return
		}
		if p.elem.parts {
			for i := range uintptr(l.len) {
				var o unsafe.Pointer
				if int(i) < was.len {
					o = unsafe.Add(was.at, i*p.elem.size)
				}
				s.below(p.elem, unsafe.Add(l.at, i*p.elem.size), o)
			}
		}
		if was.len != l.len {
			was.at = nil
		}
		l.at = s.pick(p, l.at, was.at, l.len, uintptr(l.len)*p.elem.size)
		l.cap = l.len
	case words:
		s.mapped(p, (*unsafe.Pointer)(v), old, len(*(*map[string]string)(v)))
	case amounts:
		s.mapped(p, (*unsafe.Pointer)(v), old, len(*(*corev1.ResourceList)(v)))
	}
}

// mapped shares a map of n entries, which is a pointer.
func (s *Parts) mapped(p *plan, to *unsafe.Pointer, old unsafe.Pointer, n int) {
	if was := deref(old); n > 0 && *to != was {
		*to = s.pick(p, *to, was, n, 0)
	}
}

// string takes a string over from the version before, or from the object before.
func (f *field) string(s, old *string) {
	if *s == "" {
		return
	}
	if old != nil && *old == *s {
		*s = *old
		return
	}
	if f.last == nil || len(*s) > bulky {
		return
	}
	if last := f.last.Load(); last != nil && *last == *s {
		*s = *last
		return
	}
	this := *s
	f.last.Store(&this)
}

func deref(p unsafe.Pointer) unsafe.Pointer {
	if p == nil {
		return nil
	}
	return *(*unsafe.Pointer)(p)
}

// pick a part: of the version before, of another object, or as it is.
func (s *Parts) pick(p *plan, at, was unsafe.Pointer, n int, size uintptr) unsafe.Pointer {
	switch {
	case size == 0 && (p.form == pointer || p.form == list):
		return at // nothing is kept for what has no size
	case was != nil && p.equal(was, at, n):
		return was
	case size > bulky: // somebody's data, most likely: nobody else has the same
		return at
	}
	return s.known(p, at, n)
}

// hash of a part, which equal parts have the same, and its size in bytes without the
// parts below.
func (s *Parts) hash(p *plan, at unsafe.Pointer, n int) (hash uint64, size int) {
	h := hasher{seed: s.seed, sum: uint64(p.form) + uint64(n)<<8}
	switch p.form {
	case pointer:
		h.value(p.elem, at)
		h.size += int(p.elem.size)
	case list:
		h.size += n * int(p.elem.size)
		if p.elem.form == bits {
			h.bytes(at, uintptr(h.size))
			break
		}
		for i := range uintptr(n) {
			h.value(p.elem, unsafe.Add(at, i*p.elem.size))
		}
	case words: // in any order
		var sum uint64
		for k, v := range *(*map[string]string)(unsafe.Pointer(&at)) {
			sum += stir(maphash.String(s.seed, k), maphash.String(s.seed, v))
			h.size += len(k) + len(v)
		}
		h.add(sum)
	case amounts:
		var sum uint64
		for k, v := range *(*corev1.ResourceList)(unsafe.Pointer(&at)) {
			sum += stir(maphash.String(s.seed, string(k)), uint64(v.Value()))
		}
		h.add(sum)
	}
	return h.sum, h.size
}

type hasher struct {
	seed maphash.Seed
	sum  uint64
	size int // of strings
}

func (h *hasher) add(n uint64) { h.sum = stir(h.sum, n) }

func (h *hasher) bytes(at unsafe.Pointer, n uintptr) {
	h.add(maphash.String(h.seed, unsafe.String((*byte)(at), n)))
}

func (h *hasher) value(p *plan, v unsafe.Pointer) {
	switch p.form {
	case text:
		t := *(*string)(v)
		h.add(maphash.String(h.seed, t))
		h.size += len(t)
	case record:
		for i := range p.fields {
			f := &p.fields[i]
			h.value(f.plan, unsafe.Add(v, f.offset))
		}
	case amount:
		q := *(*resource.Quantity)(v)
		h.add(uint64(q.Value()))
	case instant:
		h.add(uint64((*time.Time)(v).UnixNano()))
	case list:
		l := (*slice)(v)
		h.add(uint64(uintptr(l.at)))
		h.add(uint64(l.len))
	default:
		switch p.size {
		case 1:
			h.add(uint64(*(*uint8)(v)))
		case 8:
			h.add(*(*uint64)(v))
		default:
			h.bytes(v, p.size)
		}
	}
}

// stir a number into a hash (as MurmurHash3 does at its end).
func stir(h, n uint64) uint64 {
	h = (h ^ n) * 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
