package cache

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-dev/proa/internal/api/wire"
)

// itemsOf makes items whose encoded bytes count among k's.
func itemsOf(k *encodings, n int) []*Item {
	items := make([]*Item, n)
	for i := range items {
		items[i] = newItem(fmt.Sprint(i), &corev1.ConfigMap{}, int64(i+1), 100)
		items[i].kept = k
	}
	return items
}

// encoded has an item encoded into size bytes and says whether that had to be done.
func encoded(t *testing.T, i *Item, key string, size int) (made bool) {
	t.Helper()
	text, err := i.Encoded(key, func() (wire.Text, error) {
		made = true
		return wire.Plain(make([]byte, size)), nil
	})
	if err != nil || len(text.Bytes) != size {
		t.Fatal(len(text.Bytes), err)
	}
	return made
}

func TestEncodedOnce(t *testing.T) {
	k := &encodings{least: 1000}
	i := itemsOf(k, 1)[0]
	if _, there := i.HasEncoded("json"); there {
		t.Error("it is there before it was made")
	}
	if _, err := i.Encoded("json", func() (wire.Text, error) { return wire.Text{}, errors.New("no") }); err == nil {
		t.Error("no error")
	}
	if !encoded(t, i, "json", 10) || encoded(t, i, "json", 10) || !encoded(t, i, "protobuf", 10) {
		t.Error("not made once for each key")
	}
	if _, there := i.HasEncoded("json"); !there || k.used.Load() != 20 {
		t.Error(there, k.used.Load())
	}
	alone := &Item{Object: &corev1.ConfigMap{}}
	if !encoded(t, alone, "json", 10) || encoded(t, alone, "json", 10) {
		t.Error("an item of no cache keeps nothing")
	}
}

// TestEncodedIsBounded: what was asked for lately stays, whatever else is encoded.
func TestEncodedIsBounded(t *testing.T) {
	k := &encodings{least: 1000}
	items := itemsOf(k, 1000)
	encoded(t, items[0], "json", 10)
	for _, i := range items[1:] {
		encoded(t, i, "json", 10)
		if encoded(t, items[0], "json", 10) {
			t.Fatal("what is asked for all the time was dropped")
		}
		if k.used.Load() > 1000 || k.ring.len() > 200 {
			t.Fatal(k.used.Load(), k.ring.len())
		}
	}
	if !encoded(t, items[1], "json", 10) {
		t.Error("what nobody asked for is still there")
	}
	k.objects.Store(20_000) // more objects, more room
	for _, i := range items {
		encoded(t, i, "json", 10)
	}
	if k.used.Load() != 10_000 || encoded(t, items[1], "json", 10) {
		t.Errorf("%d bytes are kept of 10,000", k.used.Load())
	}
}

// TestRoom: there is some until what may be kept is kept.
func TestRoom(t *testing.T) {
	k := &encodings{least: 160}
	items := itemsOf(k, 32)
	for n, i := range items {
		if i.Room() != (n < 15) {
			t.Fatalf("room after %d of 16: %v", n, i.Room())
		}
		encoded(t, i, "json", 10)
	}
	k.objects.Store(encodedMost * 2)
	for range 2 * encodedMost >> 20 {
		i := itemsOf(k, 1)[0]
		encoded(t, i, "json", 1<<20)
	}
	if k.used.Load() > encodedMost {
		t.Errorf("%d bytes are kept of objects of %d", k.used.Load(), k.objects.Load())
	}
}

// TestReplacedIsDropped, but not before so many others were replaced.
func TestReplacedIsDropped(t *testing.T) {
	k := &encodings{least: 1 << 30}
	items := itemsOf(k, 3*retiredMost)
	for n, i := range items {
		encoded(t, i, "json", 10)
		k.retire(i)
		if encoded(t, items[max(0, n-retiredMost+1)], "json", 10) {
			t.Fatal("dropped too early")
		}
	}
	if k.used.Load() != 10*retiredMost || k.ring.len() > 2*retiredMost+1024 || !encoded(t, items[0], "json", 10) {
		t.Error(k.used.Load(), k.ring.len())
	}
}

// TestEncodedConcurrently: everybody gets the same bytes, and the count stays right.
func TestEncodedConcurrently(t *testing.T) {
	k := &encodings{least: 500}
	items := itemsOf(k, 100)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				for n, i := range items {
					text, _ := i.Encoded("json", func() (wire.Text, error) { return wire.Plain([]byte(fmt.Sprintf("%10d", n))), nil })
					if string(text.Bytes) != fmt.Sprintf("%10d", n) {
						t.Error("other bytes")
					}
					if n%10 == 0 {
						k.retire(i)
					}
				}
			}
		})
	}
	all.Wait()
	var there int64
	for _, i := range items {
		if text, ok := i.HasEncoded("json"); ok {
			there += int64(cap(text.Bytes))
		}
	}
	if k.used.Load() < 0 || k.used.Load() > 500 || there != k.used.Load() {
		t.Errorf("%d bytes are counted, %d are there", k.used.Load(), there)
	}
}
