# Six words: fmt, lint, test, race, bench, e2e.
#   make race RUN=TestLease       make bench BENCH=Push
#   make e2e SEED=42 MINUTES=30   both reach the tests as environment variables

RUN   ?= .
BENCH ?= .

golangci := .bin/golangci-lint

.PHONY: fmt lint test race bench e2e

fmt: $(golangci)
	$(golangci) fmt

lint: $(golangci)
	$(golangci) run ./...
	go mod tidy -diff

test:
	@npm --version >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || \
		{ echo 'make test: install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm)' >&2; exit 1; }
	cd test/clients && npm ci --no-audit --no-fund
	go vet ./...
	go test -run '^TestArchitecture' .
	go test -race $$(go list ./... | grep -v /test/)
	go test -race -count=1 -p 1 ./test/... # one after the other: they have deadlines; the cache does not see the programs that they build
	cd test/clients && npm test

race:
	go test -race -count=1 -shuffle=on -run '$(RUN)' ./...

bench:
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

e2e:
	go test -tags e2e -count=1 -timeout 0 -p 1 -v ./test/...

# Built from tools/go.mod, which keeps the linter's dependencies out of ours.
$(golangci): tools/go.mod tools/go.sum
	go -C tools build -trimpath -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
