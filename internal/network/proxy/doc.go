// Package proxy makes Services work on a node: it turns Services,
// EndpointSlices and the host ports of local pods into one nftables table.
//
//	Decide  (decide.go)  Service + slices + node -> Plan: frontends and where each sends to; pure
//	render  (render.go)  Plan -> map and set elements; pure
//	table   (table.go)   the chains all Services share
//	Proxy   (proxy.go)   the driver: Set (everything) and Apply (what changed)
//	Run     (run.go)     watches and calls Apply
//
// A Service has no chains of its own. A frontend (address, protocol, port) is
// an element of a verdict map that says how its endpoint is chosen, and its
// endpoints are elements of one big map, numbered from 0:
//
//	services4  10.96.0.7 . tcp . 80              : goto pick4-3
//	slots4     10.96.0.7 . tcp . 80 . TAG+0      : 10.244.0.5 . 8080
//	           10.96.0.7 . tcp . 80 . TAG+1      : 10.244.1.9 . 8080  …
//	pick4-3    meta mark set numgen random mod 3 offset TAG ; goto dnat4
//
// So a change writes as many elements as the Service has endpoints, however
// many Services there are, and 10,000 Services share a handful of chains.
//
// Behaviour follows the Service API and KEP-1669 (terminating endpoints),
// KEP-2086 (internalTrafficPolicy), KEP-2433 and KEP-3015 (hints), KEP-1860 (ipMode).
package proxy
