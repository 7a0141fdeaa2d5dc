# Every command a newcomer needs. Works with GNU make 3.81 (macOS) and later.
PYTHON ?= python3
BIN    := .venv/bin
RUN    := $(BIN)/python -m fgvc.run
ARGS   ?=
JOBS   ?= 2
# most slow tests wait for other processes
SLOW_JOBS ?= 3
# tests write many small files, each synchronised: in memory (Linux, 4 GiB free) they do not wait for the disk
TMPFS  := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4194304 { print "TMPDIR=/dev/shm" }')
# bytecode is written, or each worker would compile and rewrite every test module again
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(TMPFS) $(BIN)/python -m pytest --dist worksteal
GROUP  ?=
ROW    ?=

.DEFAULT_GOAL := help
.PHONY: help smoke test test-slow faults check conf docs bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -e 's/:[^#]*## /:/' | awk -F: '{printf "  make %-9s %s\n", $$1, $$2}'

smoke: .venv/installed  ## set up, then the main job end to end, offline, on synthetic birds (about 5 minutes)
	$(RUN) task=check
	$(RUN) -m experiment=smoke precision=fp32,bf16
	$(RUN) -m experiment=smoke_train precision=fp32,bf16 runtime.nproc=2 runtime.device=cpu
	$(RUN) experiment=synthetic_probe

test: .venv/installed  ## set up, then every test not marked slow or real (ARGS="-m smoke" for others; about 7 minutes)
	$(PYTEST) -n $(JOBS) -m "not slow and not real" $(ARGS)

test-slow: .venv/installed  ## the tests marked slow or real, the latter with FGVC_REAL_DATA (about 8 minutes)
	$(PYTEST) -n $(SLOW_JOBS) -m "slow or real" $(ARGS)

faults: .venv/installed  ## inject every fault and print the fault table (GROUP=disk or ROW=20,21 for a part)
	$(PYTEST) -n $(JOBS) -p tests.faults.plugin -m fault \
		$(if $(GROUP),--fault-group=$(GROUP)) $(if $(ROW),--fault-row=$(ROW)) $(ARGS)

check: .venv/installed  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

conf: .venv/installed  ## print the config a command means: make conf ARGS="backbone=vit_tiny"
	@$(RUN) --cfg job $(ARGS)

docs: .venv/installed  ## build the pages of docs/ into site/, strictly and offline
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: .venv/installed  ## speed as ratios measured side by side (about 15 minutes; ARGS="startup index" for a part)
	$(BIN)/python -m benchmarks $(ARGS)

lock:  ## write requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev pyproject.toml -o requirements.txt

clean:  ## remove the environment and caches (outputs/ and multirun/ stay)
	rm -rf .venv .pytest_cache .ruff_cache build dist site
	find fgvc hydra_plugins tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and "fgvc needs Python 3.11 to 3.13, $(PYTHON) is %d.%d: make PYTHON=python3.12 …" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements.txt)"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@
