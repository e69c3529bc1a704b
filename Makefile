# Six words: fmt, lint, test, race, bench, e2e.
#   make race RUN=TestLease       make bench BENCH=Push
#   make e2e SEED=42 MINUTES=30   both reach the tests as environment variables
#   make e2e RUN=TestFaults       one of the long tests

RUN   ?= .
BENCH ?= .

golangci := .bin/golangci-lint

.PHONY: fmt lint test race bench e2e

fmt: $(golangci)
	$(golangci) fmt

lint: $(golangci)
	$(golangci) run ./...
	go mod tidy -diff

# -cpu 1: in Go 1.26 a timer of a synctest bubble that is due at once runs in the
# goroutine that made it, and under the race detector two of them at a time crash the
# runtime (about 1 run of package node in 30). Races are found all the same.
# What is below test/ runs one after the other, for it has deadlines, and always,
# for the cache does not see the programs that it builds. The stress test runs at
# its full rate, and again for a shorter time under the race detector.
test:
	@npm --version >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || \
		{ echo 'make test: install Node.js 20 or newer with npm (Debian: apt-get install nodejs npm)' >&2; exit 1; }
	cd test/clients && npm ci --no-audit --no-fund
	go vet ./...
	go test -run '^TestArchitecture' .
	go test -race -cpu 1 $$(go list ./... | grep -v /test/)
	go test -race -count=1 -p 1 $$(go list ./test/... | grep -v /test/stress)
	go test -count=1 ./test/stress
	STRESS_SECONDS=20 go test -race -count=1 ./test/stress
	cd test/clients && npm test

race:
	go test -race -cpu 1 -count=1 -shuffle=on -run '$(RUN)' $$(go list ./... | grep -v /test/)
	go test -race -p 1 -count=1 -shuffle=on -run '$(RUN)' ./test/...

bench:
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

e2e:
	go test -tags e2e -count=1 -timeout 0 -p 1 -v -run '$(RUN)' ./test/...

# Built from tools/go.mod, which keeps the linter's dependencies out of ours.
$(golangci): tools/go.mod tools/go.sum
	go -C tools build -trimpath -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@
