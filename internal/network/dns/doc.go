// Package dns is the cluster's DNS server. Every node runs one in its process
// and answers its own pods.
//
//	Records (records.go)  Service + slices -> the names it has; pure
//	Index   (index.go)    all names, changed Service by Service
//	Server  (server.go)   UDP and TCP: the cluster's zone from the index, the rest by
//	        (forward.go)  asking the host's resolvers, with a cache
//	Runner  (run.go)      keeps an Index at what the API says
//	Publisher (publish.go) keeps Service kube-dns and its endpoints: the nodes
//
// The Service kube-dns has no selector. Its EndpointSlice lists the node's
// servers, each hinted for its own node (KEP-3015), so that the service proxy
// of a node sends queries to the server in the same process, and to another
// node's when its own is not ready.
//
// The schema is "Kubernetes DNS-Based Service Discovery", version 1.1.0.
package dns

// SchemaVersion is what dns-version answers.
const SchemaVersion = "1.1.0"

// Time to live of answers in seconds. Addresses of endpoints change more often
// than those of Services.
const (
	ttlService  = 30
	ttlEndpoint = 5
	ttlNegative = 5
)
