# Proa's commands. "make demo" and "make test" need a Debian or Ubuntu machine
# with Go; what else they need they install, and say so.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GO      ?= go
BIN     := $(CURDIR)/bin
RUNTIME := containerd containerd-shim-runc-v2 runc proa-cni host-local ptp portmap
# the version that kubectl inside proa says it is
VERSIONS   := k8s.io/component-base/version
KUBERNETES := -X $(VERSIONS).gitVersion=v1.36.3 -X $(VERSIONS).gitMajor=1 -X $(VERSIONS).gitMinor=36
CNI     := github.com/containernetworking/plugins/plugins

export GOFLAGS := -mod=mod
export CGO_ENABLED := 0

# With root everything can be done; without, what needs it says so.
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)

.PHONY: build tools demo demo-down test test-unit test-race test-e2e fuzz test-durability test-overload test-clients lint conformance bench story-plumber packages clean

build: ## bin/proa
	@echo "· building bin/proa"
	@$(GO) build -ldflags "-s -w -X main.version=$(VERSION) $(KUBERNETES)" -o $(BIN)/proa ./cmd/proa

## the programs that run containers, from their Go modules
tools: $(addprefix $(BIN)/,$(RUNTIME))

CONTAINERD := -s -w -X github.com/containerd/containerd/v2/version.Version=2.4.2

$(BIN)/containerd: tools/runtime/go.mod
	@echo "· building containerd (once, a minute)"
	@cd tools/runtime && $(GO) build -tags "no_tracing no_btrfs no_devmapper no_zfs" -ldflags "$(CONTAINERD)" -o $@ github.com/containerd/containerd/v2/cmd/containerd

# the shim becomes containers itself, as runc does: in C before Go, with no libraries
SHIM := -tags "no_grpc seccomp netgo osusergo" -ldflags "$(CONTAINERD) -extldflags -static"

$(BIN)/containerd-shim-runc-v2: tools/runtime/go.mod $(wildcard tools/runtime/shim/*.go) | packages
	@echo "· building containerd's shim, with seccomp"
	@cd tools/runtime && CGO_ENABLED=1 $(GO) build $(SHIM) -o $@ ./shim

$(BIN)/runc: tools/runtime/go.mod | packages
	@echo "· building runc, with seccomp"
	@cd tools/runtime && CGO_ENABLED=1 $(GO) build -tags "seccomp urfave_cli_no_docs netgo osusergo" -ldflags "-s -w -extldflags -static" -o $@ github.com/opencontainers/runc

$(BIN)/proa-cni: go.mod $(wildcard cmd/proa-cni/*.go internal/network/pod/cni/*.go internal/network/pod/ipam/*.go)
	@$(GO) build -ldflags "-s -w" -o $@ ./cmd/proa-cni

# for network configurations of one's own: Proa's needs none of them
$(BIN)/host-local: tools/runtime/go.mod
	@cd tools/runtime && $(GO) build -ldflags "-s -w" -o $@ $(CNI)/ipam/$(@F)
$(BIN)/ptp: tools/runtime/go.mod
	@cd tools/runtime && $(GO) build -ldflags "-s -w" -o $@ $(CNI)/main/$(@F)
$(BIN)/portmap: tools/runtime/go.mod
	@cd tools/runtime && $(GO) build -ldflags "-s -w" -o $@ $(CNI)/meta/$(@F)

packages: ## Debian packages that building and running need
	@tools/packages.sh

$(BIN)/twin.tar: examples/plumber/twin/main.go examples/pack/main.go
	@echo "· building the example image"
	@$(GO) build -ldflags "-s -w" -o $(BIN)/twin ./examples/plumber/twin
	@$(GO) run ./examples/pack --name mdneuzerling/plumber-on-k8s --program $(BIN)/twin --port 8000 --out $@

demo: build tools $(BIN)/twin.tar ## a cluster with the example of the README in it
	@$(SUDO) tools/demo.sh $(BIN)

demo-down:
	@$(SUDO) $(BIN)/proa delete

test: build tools $(BIN)/twin.tar ## all tests, from units to real containers
	@cd tools/runtime && $(SUDO) env "PATH=$$PATH" HOME="$$HOME" GOFLAGS=$(GOFLAGS) CGO_ENABLED=1 $(GO) test $(TESTFLAGS) $(SHIM) ./shim
	@$(SUDO) env "PATH=$$PATH" HOME="$$HOME" PROA_RUNTIME_DIR=$(BIN) PROA_BIN=$(BIN)/proa GOFLAGS=$(GOFLAGS) CGO_ENABLED=0 \
		$(GO) test -timeout 45m $(TESTFLAGS) ./...

test-unit: ## those that need neither root nor the runtime
	@$(GO) test $(TESTFLAGS) ./internal/... ./cmd/...

test-e2e: build tools $(BIN)/twin.tar
	@$(SUDO) env "PATH=$$PATH" HOME="$$HOME" PROA_RUNTIME_DIR=$(BIN) PROA_BIN=$(BIN)/proa GOFLAGS=$(GOFLAGS) CGO_ENABLED=0 \
		$(GO) test -timeout 45m -v $(TESTFLAGS) ./test/...

story-plumber: build tools ## story 1 with the real R image, built from Debian packages
	@$(SUDO) env "PATH=$$PATH" HOME="$$HOME" examples/plumber/build-image.sh $(BIN)/plumber.tar
	@$(SUDO) env "PATH=$$PATH" HOME="$$HOME" PROA_RUNTIME_DIR=$(BIN) PROA_BIN=$(BIN)/proa PROA_PLUMBER_IMAGE=$(BIN)/plumber.tar GOFLAGS=$(GOFLAGS) CGO_ENABLED=0 \
		$(GO) test -timeout 30m -v -run 'TestPlumber' ./test/e2e

# Upstream is tested and measured by programs that are built by the user and run
# as root; see docs/.
CONFORMANCE := $(BIN)/conformance/conformance
# a cluster of one's own choice counts only when it is named in the command:
# KUBECONFIG of the environment is another matter
GIVEN = $(if $(filter command,$(firstword $(origin KUBECONFIG))),--kubeconfig "$(KUBECONFIG)")
# a variable's text for the shell, whatever it holds
quote = '$(subst ','\'',$(value $(1)))'

conformance: build tools ## upstream's conformance tests: FOCUS= SKIP= PROCS= TIMEOUT= KUBECONFIG=
	@cd test/conformance && $(GO) build -o $(CONFORMANCE) .
	@$(SUDO) env "PATH=$$PATH" HOME="$$HOME" GOFLAGS=$(GOFLAGS) $(CONFORMANCE) --repo $(CURDIR) --bin $(BIN) $(GIVEN) \
		--focus $(call quote,FOCUS) --skip $(call quote,SKIP) $(if $(PROCS),--procs "$(PROCS)") $(if $(TIMEOUT),--timeout "$(TIMEOUT)")

test-race: ## test-unit under the race detector: a quarter of an hour, and a C compiler
	@CGO_ENABLED=1 $(GO) test -race -p 1 -timeout 30m $(TESTFLAGS) ./internal/... ./cmd/...

fuzz: ## every fuzz target for FUZZTIME=1m, or those of TARGETS="FuzzPatch FuzzRequest"
	@GO=$(GO) tools/fuzz.sh $(or $(FUZZTIME),1m) $(TARGETS)

test-durability: ## kills the server a thousand times while clients write; a quarter of an hour
	@PROA_DURABILITY_ROUNDS=1000 $(GO) test -timeout 120m -v -run 'TestKilled' ./test/state

test-overload: ## 2,000 clients for a minute, while nodes renew their leases
	@PROA_OVERLOAD="2000 60s" $(GO) test -timeout 10m -v -run 'TestOverload' ./test/state

# -p 1: helm and cert-manager are big to build
test-clients: build ## helm, controller-runtime, client-go and cert-manager against a server
	@cd test/clients && PROA_BIN=$(BIN)/proa $(GO) test -p 1 -timeout 30m $(TESTFLAGS) ./...

bench: build tools $(BIN)/twin.tar ## the figures of the README: PARTS= COUNT= SYSTEMS= OUTPUT= KUBECONFIG=
	@$(GO) build -o $(BIN)/bench/bench ./test/bench
	@$(SUDO) env "PATH=$$PATH" HOME="$$HOME" GOFLAGS=$(GOFLAGS) $(BIN)/bench/bench --repo $(CURDIR) --bin $(BIN) $(GIVEN) \
		$(if $(PARTS),--parts "$(PARTS)") $(if $(COUNT),--count "$(COUNT)") $(if $(SYSTEMS),--systems "$(SYSTEMS)") $(if $(OUTPUT),-o "$(OUTPUT)")

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

lint: ## what .golangci.yml says, of PKGS=./internal/cache/...; the linter is built once
	@$(GO) run $(GOLANGCI) run $(or $(PKGS),./...)

clean:
	rm -rf $(BIN)
