// Package ingress serves Ingresses: it takes HTTP requests from outside and
// hands them to the endpoints of Services.
//
//	Decide (decide.go)    Ingresses, Services, slices, Secrets -> Table; pure
//	Table  (table.go)     finds the backend for a host and a path
//	Server (server.go)    the listeners; Set puts a Table in force
//	       (forward.go)   one request: choose an endpoint, send, retry what was never sent
//	       (backend.go)   the endpoints of a Service port: choosing, avoiding, draining
//	       (failure.go)   answers of our own: what failed, at which hop, where to look
//	Runner (run.go)       watches, decides, sets; writes status.loadBalancer
//
// No timeout applies to a request unless its Ingress asks for one. A request is
// repeated when no byte of it was written to an endpoint, or when its method is
// idempotent (RFC 9110, 9.2.2) and no byte of an answer has come. An endpoint
// that leaves gets no new requests; those it has are finished.
package ingress

// Controller is spec.controller of IngressClasses that are served.
const Controller = "proa.dev/ingress"

// ClassName is the class every cluster has.
const ClassName = "proa"

// Annotations of an Ingress.
const (
	// AnnotationForceHTTPS "true" redirects plain HTTP to HTTPS (308).
	AnnotationForceHTTPS = "proa.dev/force-https"
	// AnnotationTimeout is how long an endpoint may take to begin its answer
	// ("30s"). Without it there is no limit.
	AnnotationTimeout = "proa.dev/timeout"
	// AnnotationProtocol is how endpoints are spoken to if the Service's port has
	// no appProtocol: http, https, h2c.
	AnnotationProtocol = "proa.dev/backend-protocol"

	annotationClass      = "kubernetes.io/ingress.class"
	annotationDefault    = "ingressclass.kubernetes.io/is-default-class"
	annotationNginxForce = "nginx.ingress.kubernetes.io/force-ssl-redirect"
)
