# make app   sets everything up and opens the explorer
# make test  sets up what the tests need and runs lint, types and all tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
LOCKED := $(shell $(PYTHON) -c "import platform as p, sys; print('yes' if (sys.platform, p.machine(), sys.version_info[:2]) == ('linux', 'x86_64', (3, 11)) else '')")

.PHONY: app test lint types browser benchmark lock clean

app: $(VENV)/app.done
	$(BIN)/python -m explorer serve

test: $(VENV)/dev.done browser lint types
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.done
	$(BIN)/mypy

benchmark: $(VENV)/dev.done
	$(BIN)/python -m benchmarks.simulate --json

# The browser tests drive the system's Chromium.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| { apt-get update -qq && apt-get install -y -qq chromium; } \
		|| { sudo apt-get update -qq && sudo apt-get install -y -qq chromium; }

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The locks are for Python 3.11 on x86-64 Linux; elsewhere pip resolves anew.
$(VENV)/app.done: requirements.txt requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCKED),--require-hashes -r requirements.lock,-r requirements.txt)
	touch $@

$(VENV)/dev.done: requirements-dev.txt requirements.txt requirements.lock requirements-dev.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LOCKED),--require-hashes -r requirements-dev.lock,-r requirements-dev.txt)
	touch $@ $(VENV)/app.done

# Resolve anew and write both locks.
lock: $(VENV)/bin/python
	$(BIN)/python tools/lock.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
