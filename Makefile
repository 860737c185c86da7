PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

BROWSERS := chromium chromium-browser google-chrome

.PHONY: demo bench test test-long lint install browser clean
.DELETE_ON_ERROR:

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@

demo: install
	PATH="$(abspath $(BIN)):$$PATH" scripts/demo.sh

bench: install
	$(BIN)/catnet bench --curves -o artifacts/bench

test: install lint browser
	CATNET_ARTEFACTS="$${CATNET_ARTEFACTS:-artifacts}" $(BIN)/pytest -n auto --dist worksteal

# What takes hours: 200 kills, 20,000 steps of hostile episodes, memory over 5,000 steps, and ten
# minutes of search for each reader that is fuzzed; `make test` gives these seconds.
test-long: install
	$(BIN)/pytest -m long --timeout 0
	CATNET_FUZZ_SECONDS="$${CATNET_FUZZ_SECONDS:-600}" CATNET_FUZZ_EXAMPLES=2000 $(BIN)/pytest tests/fuzz tests/corpus tests/security --timeout 0

# The report page is tested in Debian's Chromium; where it cannot be had, that test skips and says so.
browser:
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit; done; \
	command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] || exit 0; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium || true

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
