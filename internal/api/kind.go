// Package api says what a kind is. A kind is data: one Kind value holds its
// names, its Go type, its defaults, its validation, its columns. The packages
// below this one (core, apps, …) make those values; kinds.All lists them.
//
// There are no internal types: the wire type of k8s.io/api is what is stored,
// cached, defaulted, validated and reconciled.
package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"time"
)

// Object is one Kubernetes object: a pointer to a wire type of k8s.io/api, or
// *unstructured.Unstructured for a custom resource. An Object that came out of
// the cache, a client read or an informer is shared and must not be changed:
// DeepCopyObject it first. Its TypeMeta is empty (as with client-go's typed
// clients), except for unstructured objects.
type Object interface {
	runtime.Object
	metav1.Object
}

// Encoding is the form in which a kind is kept in the store.
type Encoding int

const (
	Protobuf Encoding = iota // "k8s\0" + runtime.Unknown, as upstream stores built-in kinds
	JSON                     // plain JSON with apiVersion and kind, as upstream stores custom resources
)

// Kind describes one resource. Zero values mean the usual. The functions get
// storage-shape objects, may be called concurrently, and must be pure but for
// changing the object they are told to change.
type Kind struct {
	schema.GroupVersionKind // of the storage shape, which is also served

	Resource   string   // plural, as in URLs: "pods"
	Singular   string   // "" = lower-case Kind
	ShortNames []string // "po"
	Categories []string // "all"
	Cluster    bool     // true = cluster-scoped, false = namespaced
	Path       string   // below /registry/: "services/specs"; "" = Resource (built-ins), GROUP/Resource for custom resources set it themselves
	Encoding   Encoding
	Verbs      []string // nil = create delete deletecollection get list patch update watch
	Deprecated string   // the warning a client is sent for any request, "" = none
	Virtual    bool     // never stored: a review (create) or what is worked out when asked for (get, list), both by a handler that the API server is given

	New     func() Object
	NewList func() runtime.Object

	// Default fills in what the user left out. Runs on every decoded body and on
	// every object read from the store.
	Default func(obj Object)
	// Reset makes obj acceptable for this verb before validation: fields the
	// request may not touch get their old values, status is emptied on create,
	// metadata.generation moves. old is nil on create. sub is "" for the object
	// itself or the name of the subresource that is written.
	Reset func(obj, old Object, sub string)
	// Validate returns what is wrong with obj. old is nil on create. The usual
	// metadata checks (name, namespace, labels, annotations, owner references,
	// immutable uid/creationTimestamp) have been made by the verb already.
	Validate func(obj, old Object, sub string) field.ErrorList
	// ValidName says why a name is not good, nil = DNS-1123 subdomain.
	ValidName func(name string, prefix bool) []string
	// Warn returns warnings for a good object ("… is deprecated").
	Warn func(obj, old Object) []string

	// Columns and Row make the Table that kubectl prints, without Name and Age
	// being implied: they are columns like others. nil = Name and Created At.
	Columns []metav1.TableColumnDefinition
	Row     func(obj Object) []any

	// Fields are the selectable fields besides metadata.name and metadata.namespace.
	Fields func(obj Object) fields.Set
	// Indexes are kept by the cache and by informers, by name. A field selector
	// "NAME=VALUE" whose NAME is an index is answered from it, and a watch on it
	// is not woken by changes elsewhere.
	Indexes map[string]func(obj Object) []string

	Subresources []Subresource
	Shapes       []Shape
	// Stored are further versions in which others have stored objects: read, never
	// served. New and To may be nil: then their layout is that of the kind.
	Stored []Shape

	// CreateOnUpdate lets PUT of a name that is not there create it.
	CreateOnUpdate bool
	// StrictUpdate refuses an update without resourceVersion.
	StrictUpdate bool
	// TTL is how long an object lives after its last write; nil or 0 = for ever.
	TTL func(obj Object) time.Duration
	// Grace decides a graceful deletion: how many seconds obj stays, marked with
	// deletionTimestamp, for somebody (the kubelet) to finish it. nil or 0 = at once.
	Grace func(obj Object, opts *metav1.DeleteOptions) int64
	// Deleting marks obj, a private copy, when a deletion of it begins: with a
	// finalizer, say. nil = nothing.
	Deleting func(obj Object)
	// Prune drops what the schema of the version that obj says it has does not
	// know, and returns the paths of it. An error is a body that has to be
	// refused. For kinds without a Go type of their own; nil = nothing is dropped.
	Prune func(obj Object) (unknown []string, err error)
	// Convert brings obj, which it may change, into another version of the kind,
	// for kinds whose objects say which version they are in; nil = Shapes convert.
	// Objects in the cache are then in whatever version they were stored in, and a
	// write works on the version that the request is in: the functions of a Kind
	// get objects in that.
	Convert func(obj Object, to schema.GroupVersionKind) (Object, error)
	// ConvertAll is Convert of many, none of which it changes, in one call to who
	// knows how (a webhook). Not nil = a conversion is costly, and is remembered.
	ConvertAll func(objs []Object, to schema.GroupVersionKind) ([]Object, error)
	// Orphan is the deletion propagation when the request names none: true =
	// dependents are orphaned, false = collected in the background.
	Orphan bool
}

// Subresource is a path below an object.
//
//   - Body nil: the body is the object itself, and the write goes through
//     Reset and Validate with sub = Name ("status", "ephemeralcontainers").
//   - Get and Set given: a projection, such as scale.
//   - otherwise an action (binding, eviction, token, log, exec …) that a
//     handler of the API server answers.
type Subresource struct {
	Name  string
	Kind  schema.GroupVersionKind // of the body, zero = the kind itself
	Verbs []string                // nil = get patch update
	Body  func() runtime.Object
	Get   func(obj Object) (runtime.Object, error)
	Set   func(obj Object, body runtime.Object) error // changes obj, a private copy
}

// Shape is another version in which a kind is served. From and To convert; they
// get a private copy and may reuse its parts. Both lose nothing that the other
// side can hold.
type Shape struct {
	schema.GroupVersionKind
	Resource   string // "" = as the kind
	New        func() Object
	NewList    func() runtime.Object
	From       func(storage Object) Object
	To         func(shaped Object) Object
	Deprecated string // the warning a client is sent, "" = none
	// Default fills in defaults of this version before To, nil = none.
	Default func(shaped Object)
	// Validate is what this version asks for besides Kind.Validate, of objects in
	// the storage shape, nil = nothing.
	Validate func(obj, old Object, sub string) field.ErrorList
	// Hub is the kind as requests in this version see it, where versions differ in
	// more than their form: each has columns, fields and subresources of its own.
	// Its functions get objects in this version. It goes with Kind.Convert, in the
	// place of From, To, Default and Validate. nil = the kind itself.
	Hub *Kind
}

// GroupResource of the kind.
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Resource}
}

// GroupVersionResource of the storage shape.
func (k *Kind) GroupVersionResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: k.Group, Version: k.Version, Resource: k.Resource}
}

// Key is where an object is kept in the store, without /registry.
func (k *Kind) Key(namespace, name string) string {
	if k.Cluster {
		return k.Prefix() + name
	}
	return k.Prefix() + namespace + "/" + name
}

// Prefix is what all keys of the kind begin with: "/pods/".
func (k *Kind) Prefix() string {
	if k.Path == "" {
		return "/" + k.Resource + "/"
	}
	return "/" + k.Path + "/"
}

// Subresource by name, nil if there is none.
func (k *Kind) Subresource(name string) *Subresource {
	for i := range k.Subresources {
		if k.Subresources[i].Name == name {
			return &k.Subresources[i]
		}
	}
	return nil
}

// AllVerbs is what a resource answers to when its Kind names no verbs, in the
// order of discovery.
var AllVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// Does says whether the kind answers to a verb.
func (k *Kind) Does(verb string) bool {
	verbs := k.Verbs
	if verbs == nil {
		verbs = AllVerbs
	}
	for _, v := range verbs {
		if v == verb {
			return true
		}
	}
	return false
}
