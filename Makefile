# Everything a person or CI runs here. Longer logic stands in deploy/*.sh.
.DEFAULT_GOAL := help
.PHONY: help run test test-fast chaos drain check lint deny docs alerts workflows sql sql-check proto migration
.PHONY: bench overload load chart image up down setup build
BIN := $(or $(CARGO_TARGET_DIR),target)/debug
STACK = $(BIN)/devstack exec --

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Start Postgres with a standby, Redis and the service on real data; Ctrl-C stops all
	@$(STACK) deploy/run.sh

test: build ## Run every test, against real servers
	$(STACK) cargo test --workspace --no-fail-fast

test-fast: ## Run the tests that need no server
	cargo test --workspace --lib --bins -- --skip http_tests

chaos: build ## Minutes of faults under load, every cell of the failure matrix, and every order of what threads do
	$(STACK) cargo test -p api --test chaos -- --nocapture --test-threads=1
	RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=$(BIN)/../loom cargo test -p resilience --lib breaker::orders

drain: build ## Restart two processes twenty times under clients of every kind; nobody may lose anything
	$(STACK) cargo test -p api --test chaos drain -- --nocapture

check: lint deny docs alerts workflows sql-check ## Everything CI asks before the tests

lint: ## Formatting, clippy, and which crate may use which
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo test --workspace --test walls --quiet

# Licences, sources, banned and doubled dependencies
deny:
	deploy/tools.sh && cargo fetch --locked --quiet
	$(BIN)/../tools/bin/cargo-deny --offline --workspace check -D unmatched-skip bans licenses sources

# The documentation of every item, warnings refused
docs:
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --quiet

alerts: ## Alerts and dashboard: made of deploy/slo.toml, fire when they should and not else, each with its page
	@deploy/alerts/check.sh

# actionlint, and every action pinned
workflows:
	@deploy/workflows.sh

# A new statement does not compile before this has run, so it asks for a devstack of any age only.
sql: setup ## Write .sqlx/ anew after a change to a statement or a migration
	@test -x $(BIN)/devstack || $(MAKE) build
	@$(STACK) deploy/sql.sh

sql-check: build
	@$(STACK) deploy/sql.sh --check

proto: ## Write the Rust of crates/api/proto anew after a change to it; no protoc needed
	CARGO_TARGET_DIR=$(BIN)/../proto cargo run --quiet --manifest-path deploy/proto/Cargo.toml

migration: ## Create a migration: make migration name=create_notes
	@deploy/migration.sh '$(name)'

bench: setup ## Compare the whole stack with bare servers, side by side
	@deploy/bench.sh

overload: setup ## Ask the service for up to ten times what it can do, with and without admission
	cargo bench --package api --bench stack -- overload

chart: build ## Render the Helm chart for every set of values and check it, with no cluster
	@helm/check.sh

load: setup ## Load tests with k6: make load SCENARIO=steady, or spike, soak, stampede, loss
	@deploy/load.sh '$(SCENARIO)'

image: ## Build the image holdfast:dev with Docker
	DOCKER_BUILDKIT=1 docker build --file deploy/Dockerfile --tag holdfast:dev --build-arg REVISION=$$(git rev-parse HEAD) .

up: ## Start all with Docker Compose: make up, or make up PROFILES=observe,grpc
	COMPOSE_PROFILES='$(PROFILES)' TRACES_SAMPLED=$(if $(findstring observe,$(PROFILES)),1,0) docker compose up --build --detach --wait

down: ## Stop what `make up` started, and forget its data
	docker compose --profile '*' down --volumes

setup: ## Install Postgres and Redis where they are missing, and the tests' PgBouncer, Envoy and HAProxy
	@deploy/setup.sh

# With one test among the targets cargo chooses the features that tests need, and `make test` compiles no crate again.
build: setup
	cargo build --workspace --bins --test walls
