# Everything a developer or CI does here; `make` alone lists it. For GNU make 3.81 or newer and any POSIX sh.
#
# The first target that needs it sets up $(VENV) with the locked packages; later ones find it ready.
# Variables, given as in `make test PYTHON=python3.12 VENV=.venv-3.12`:
#   PYTHON            the interpreter to set up with; otherwise the first suitable one of PYTHONS
#   VENV              where the environment is (several can be kept, one for each Python)
#   CHROMIUM          for make browser, a Chromium that is not /usr/bin/chromium
#   SCREENSHOTS       for make browser, where the pictures of the console go: docs/images renews the documentation's
#   ARGS              more arguments for run, test, coverage, mutants, bench, week, soak and lock
#   PIP_BINARY_ONLY   empty: also packages that must be compiled are accepted

PYTHON ?=
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.14)
VENV := .venv
ARGS ?=
SCREENSHOTS ?=
PIP_BINARY_ONLY ?= --only-binary=:all:

BIN := $(VENV)/bin
PIP_INSTALL := bin/python -m pip install --no-compile --no-input --disable-pip-version-check
COMPILE := $(VENV)-lock/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--only-binary :all: --generate-hashes --custom-compile-command 'make lock'

SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
NO_PYTHON = Python 3.11 or newer is needed and none was found among: $(PYTHONS). \
	Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3
NO_VENV = cannot make virtual environments: its venv or ensurepip module is missing. \
	On Debian and Ubuntu, install the package python3-venv (or python3.12-venv and so on for that version).
NO_PACKAGES = The packages could not be installed (see above). If one has no ready-made file for this Python \
	or platform, use Python 3.11, 3.12 or 3.13 on Linux or macOS (make PYTHON=python3.12), \
	or install a C compiler and add PIP_BINARY_ONLY= to the command.

.PHONY: help
help: ## List these targets (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: $(VENV)/.installed ## Start the service and its local stand-ins, and show one round trip (ARGS="--help" for more)
	@$(BIN)/acs-auth-local run $(ARGS)

.PHONY: test
test: $(VENV)/.installed ## Run the tests, one process per core (ARGS="-k token -n 0" for some of them in one process)
	@$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.installed ## Run the tests and print which branches they miss, child processes included (ARGS as for test)
	@rm -rf .coverage && mkdir .coverage
	@$(BIN)/coverage run -m pytest --numprocesses auto --dist worksteal $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

.PHONY: mutants
mutants: $(VENV)/.installed $(VENV)-mutants/.packages ## Change the code here and there and see whether the tests notice (ARGS="--help" for more)
	@$(VENV)-mutants/bin/python -P tests/support/mutants.py --python "$(abspath $(BIN))/python" $(ARGS)

.PHONY: browser
browser: $(VENV)/.installed ## Test the browser client and the console in Chromium, with Microsoft's own packages, in about two minutes
	@$(NODE_TOOLS); $(BROWSER_TOOLS); $(call report-missing,The browser tests need, (or name another Chromium: make browser CHROMIUM=/path/to/chromium))
	@cd clients/web && { test node_modules/.package-lock.json -nt package-lock.json || $(NPM_CI); }
	@cd clients/web && npm test && SERVICE_PYTHON="$(abspath $(BIN))/python" \
		SCREENSHOTS="$(and $(SCREENSHOTS),$(abspath $(SCREENSHOTS)))" npm run browser

.PHONY: openapi
openapi: $(VENV)/.installed $(VENV)-openapi/.packages ## Lint the OpenAPI document, generate clients from it and run them, in about a minute
	@$(NODE_TOOLS); $(call report-missing,The checks of the OpenAPI document need)
	@cd clients/openapi && { test node_modules/.package-lock.json -nt package-lock.json || $(NPM_CI); }
	@OPENAPI_TOOLS="$(abspath $(VENV)-openapi)" $(BIN)/pytest tests/openapi --quiet $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed ## Measure the service on this machine, in about 20 minutes (ARGS="--quick" for a glance)
	@$(BIN)/python -m benchmark $(ARGS)

.PHONY: week
week: $(VENV)/.installed ## Simulate a week of ten million users, in about six minutes (ARGS="--over-the-wire" checks the model)
	@$(BIN)/python -m benchmark.week $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed ## Prove in the long run what the tests prove in short (ARGS="crash"; without, it lists the proofs)
	@$(BIN)/python -m soak $(ARGS)

.PHONY: check
check: $(VENV)/.installed ## Check lint, format, types and the layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: infra
infra: $(VENV)/.installed ## Build and check the Bicep templates (BICEP=/path/to/bicep; ARGS=--write-snapshots keeps what they deploy)
	@$(BIN)/python -m tests.infra.check $(ARGS)

.PHONY: format
format: $(VENV)/.installed ## Correct what can be corrected: import order, simple lint, format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs
docs: $(VENV)-docs/.packages ## Build the documentation site into site/, strictly (ARGS=--quiet tells warnings only)
	@$(FETCH_MERMAID)
	@test ! -s $(MERMAID) || MERMAID_JS="$(abspath $(MERMAID))"; export MERMAID_JS; \
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --clean $(ARGS)
	@echo "site/index.html: $$(find site -name '*.html' ! -name 404.html | wc -l | tr -d ' ') pages, links and anchors checked."

.PHONY: lock
lock: $(VENV)-lock/bin/uv ## Lock pyproject.toml's dependencies into requirements/ (ARGS=--upgrade for newer releases)
	$(COMPILE) --output-file requirements/run.txt $(ARGS)
	$(COMPILE) --extra local --extra dev --constraint requirements/run.txt --output-file requirements/dev.txt $(ARGS)
	$(subst pyproject.toml,--group docs,$(COMPILE)) --output-file requirements/docs.txt $(ARGS)
	$(subst pyproject.toml,--group openapi,$(COMPILE)) --output-file requirements/openapi.txt $(ARGS)

.PHONY: clean
clean: ## Remove the environment and all caches; what `make run` stored stays
	rm -rf clients/openapi/node_modules clients/web/node_modules clients/web/build clients/web/dist
	rm -rf $(VENV) $(VENV)-docs $(VENV)-lock $(VENV)-mutants $(VENV)-openapi .coverage dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

NPM_CI = npm ci --ignore-scripts --no-audit --no-fund
# Note in $missing what `make openapi` and `make browser` lack, and report it in one sentence.
NODE_TOOLS = missing=; \
	node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || missing="$$missing nodejs (20 or newer)"; \
	npm --version >/dev/null 2>&1 || missing="$$missing npm"
BROWSER_TOOLS = test -x "$${CHROMIUM:-/usr/bin/chromium}" || missing="$$missing chromium"; \
	test -n "$$(find /usr/lib /usr/local/lib -name libfaketimeMT.so.1 2>/dev/null)" || missing="$$missing faketime"
report-missing = test -z "$$missing" || { echo "$(1) what is missing here:$$missing; install these Debian packages$(2)." >&2; exit 1; }

MERMAID := $(VENV)-docs/mermaid.min.js
MERMAID_VERSION := 11.17.2
MERMAID_SHA256 := 581ed7d74bd9048d0e3a91363927d72ef22942d7722546b27f7cc29e35390eb8
# Draws the diagrams. The theme would load it from the Internet each time that somebody reads the site.
FETCH_MERMAID = test -s $(MERMAID) || { \
	cd $(VENV)-docs && npm pack mermaid@$(MERMAID_VERSION) --silent >/dev/null 2>&1 && \
	tar -xzOf mermaid-$(MERMAID_VERSION).tgz package/dist/mermaid.min.js > mermaid.part && rm mermaid-$(MERMAID_VERSION).tgz && \
	bin/python -c 'import hashlib, sys; sys.exit(hashlib.sha256(open("mermaid.part", "rb").read()).hexdigest() != "$(MERMAID_SHA256)")' && \
	mv mermaid.part mermaid.min.js; } || \
	echo "npm could not fetch mermaid $(MERMAID_VERSION): the diagrams of this build are drawn only while unpkg.com can be reached." >&2

# Makes an empty virtual environment in directory $(1) with the first suitable interpreter.
define make-venv
@for python in $(PYTHONS); do "$$python" -c '$(SUITABLE)' 2>/dev/null && break; python=; done; \
test -n "$$python" || { echo '$(NO_PYTHON)' >&2; exit 1; }; \
"$$python" -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python" '$(NO_VENV)' >&2; exit 1; }; \
echo "Setting up $(1) with $$("$$python" --version) (this first time only)."; \
"$$python" -m venv --clear $(1)
endef

# Installs the lock file $(2) into the environment $(1), and says now and then how far it is; pip's own words, if it fails.
define install-locked
@{ PYTHONUNBUFFERED=1 $(1)/$(PIP_INSTALL) $(PIP_BINARY_ONLY) --require-hashes --requirement $(2) 2>$(1)/.refusal || \
	{ cat $(1)/.refusal >&2; echo FAILED; }; } | \
awk -v all="$$(grep -c '^[a-z].*==' $(2))" '/^(Collecting|Processing) / && ++n % 25 == 0 { print "  " n " of " all " packages fetched"; fflush() } \
	/^Installing collected/ { print "  " n " packages fetched, installing them"; fflush() } /^FAILED$$/ { failed = 1 } END { exit failed }' || \
{ echo '$(NO_PACKAGES)' >&2; exit 1; }
endef

$(VENV)/.packages: requirements/dev.txt
	$(call make-venv,$(VENV))
	$(call install-locked,$(VENV),$<)
	@touch $@

$(VENV)/.installed: $(VENV)/.packages pyproject.toml local_azure/pyproject.toml
	@$(VENV)/$(PIP_INSTALL) -qq --no-deps --no-build-isolation --editable . --editable local_azure
	@touch $@

$(VENV)-docs/.packages: requirements/docs.txt
	$(call make-venv,$(VENV)-docs)
	$(call install-locked,$(VENV)-docs,$<)
	@touch $@

# Apart from $(VENV): the generated client runs here, on nothing but what the generator says that it needs.
$(VENV)-openapi/.packages: requirements/openapi.txt
	$(call make-venv,$(VENV)-openapi)
	$(call install-locked,$(VENV)-openapi,$<)
	@touch $@

# Apart from $(VENV): a lock that cannot be installed is mended by locking again.
$(VENV)-lock/bin/uv:
	$(call make-venv,$(VENV)-lock)
	@$(VENV)-lock/$(PIP_INSTALL) -qq --only-binary=:all: uv==0.13.9

# Apart from $(VENV), too: cosmic-ray brings much that nothing else needs, and one package of it that has no wheel.
$(VENV)-mutants/.packages:
	$(call make-venv,$(VENV)-mutants)
	@$(VENV)-mutants/$(PIP_INSTALL) -qq --only-binary=:all: --no-binary=yattag cosmic-ray==8.7.0
	@touch $@
