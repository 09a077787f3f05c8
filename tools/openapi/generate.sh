#!/bin/sh
# Makes what internal/apiserver/openapi embeds. Run by `go generate ./internal/apiserver/openapi`.
set -eu
cd "$(dirname "$0")"
out=../../internal/apiserver/openapi/data
export CGO_ENABLED=0 GOFLAGS=-mod=mod
api=$(go list -f '{{.Dir}}' -m k8s.io/api)
packages=$(cd "$api" && grep -l 'openapi-gen=true' */*/doc.go | sed 's#^#k8s.io/api/#; s#/doc.go$##')
machinery=k8s.io/apimachinery/pkg
mkdir -p "$out" definitions
# The violations it reports are those of the upstream types; they are not ours to mend.
go tool openapi-gen --go-header-file /dev/null --report-filename /dev/null \
	--output-dir definitions --output-file zz_generated.go \
	--output-pkg github.com/proa-dev/proa/tools/openapi/definitions \
	$packages $machinery/apis/meta/v1 $machinery/runtime $machinery/version \
	$machinery/util/intstr $machinery/api/resource \
	k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 \
	k8s.io/kube-aggregator/pkg/apis/apiregistration/v1 \
	k8s.io/metrics/pkg/apis/metrics/v1beta1
go run . "$out"
