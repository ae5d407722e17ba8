# make app   sets everything up and opens the explorer
# make test  sets up what the tests need and runs lint, types and all tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: app test lint types browser benchmark lock clean

app: $(VENV)/app.done
	$(BIN)/streamlit run explorer/app.py

test: $(VENV)/dev.done browser lint types
	$(BIN)/python -m pytest

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

$(VENV)/app.done: requirements.txt requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c requirements.lock
	touch $@

$(VENV)/dev.done: requirements-dev.txt requirements.txt requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c requirements.lock
	touch $@ $(VENV)/app.done

# Write down the versions that are installed now.
lock: $(VENV)/dev.done
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
