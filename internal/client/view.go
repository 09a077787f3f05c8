package client

import "github.com/proa-dev/proa/internal/api"

// View is the state of what a watch tells of, kept by a Conn: never behind what
// Next has returned, perhaps ahead of it. Methods may be called concurrently;
// objects are shared.
type View interface {
	// Get returns nil when there is no such object.
	Get(namespace, name string) api.Object
	// Each visits the objects of a namespace, "" = all, until visit returns false.
	Each(namespace string, visit func(api.Object) bool)
	ByIndex(index, value string, visit func(api.Object) bool)
	Len() int
}

// Viewer is implemented by Events that come with a View. An Informer on them
// keeps nothing itself.
type Viewer interface{ View() View }

// noView is read before there is anything.
type noView struct{}

func (noView) Get(string, string) api.Object                 { return nil }
func (noView) Each(string, func(api.Object) bool)            {}
func (noView) ByIndex(string, string, func(api.Object) bool) {}
func (noView) Len() int                                      { return 0 }
