# `make` lists the targets. All tools come from .venv, which local_test/setup.sh makes and keeps up to date.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv jupyter test test-fast test-docker bench soak lint style types shell format lock images clean

VENV := .venv/bin
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci/run docker/train docker/serve)
# Wheels that happen to lie on this machine (a CPU build of torch, say) must not get into a lock.
LOCK := PIP_FIND_LINKS= UV_FIND_LINKS= $(VENV)/uv pip compile --quiet --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
# A package index with a CPU build of torch, as scripts/build.sh --torch-index takes it.
TORCH_INDEX ?= $(or $(BYOC_TORCH_INDEX),https://download.pytorch.org/whl/cpu)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv:
	@local_test/setup.sh

jupyter: venv  ## JupyterLab with the notebooks of examples/, installed into .venv on first use
	$(VENV)/python -m pip install --quiet --require-hashes -r examples/jupyter.lock
	$(VENV)/jupyter lab --notebook-dir . examples/laptop.ipynb

# Lanes of tests side by side: most tests wait now and then, so one more than there are processors, at most four.
LANES ?= -n $(shell lanes=$$(( $$(getconf _NPROCESSORS_ONLN) + 1 )); echo $$(( lanes < 4 ? lanes : 4 )))

test: venv  ## all tests that this machine can run; says what it skipped and why (PYTEST_ARGS="-k ping" for some)
	$(VENV)/python -m pytest $(LANES) $(PYTEST_ARGS)

test-fast: venv  ## the tests without Docker, and without the quick start's commands in a fresh clone
	$(VENV)/python -m pytest $(LANES) -m "not docker and not clone and not whole" $(PYTEST_ARGS)

test-docker: venv  ## the tests of the images, and the quick start's commands in a fresh clone
	$(VENV)/python -m pytest $(LANES) -m "docker or clone" $(PYTEST_ARGS)

bench: venv  ## all benchmarks, their peers beside them: half an hour; results.json and a table in tests/bench
	$(VENV)/python tests/bench/run.py $(BENCH_ARGS)

soak: venv  ## tests/faults in full, what else takes long, then half an hour of load with hostile requests and killed workers (SOAK_ARGS)
	TESTS=full $(VENV)/python -m pytest tests/faults
	TESTS=full $(VENV)/python -m pytest -m full --ignore tests/faults
	$(VENV)/python tests/faults/soak.py $(SOAK_ARGS)

lint: style types shell  ## ruff, mypy, shellcheck: what CI checks; changes nothing

style: venv
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

types: venv  ## mypy, strict
	$(VENV)/mypy
	$(VENV)/mypy docker/sbom.py docker/advisories.py docker/versions/check.py .ci/tests.py examples/signs.py examples/charts.py

shell:
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck $(SHELL_SCRIPTS); \
	elif [ "$$CI" = true ]; then echo "CI has to provide shellcheck" >&2; exit 1; \
	else echo "shellcheck is not installed: shell scripts were not checked"; fi

format: venv  ## ruff: formats and fixes what it safely can
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

lock: venv  ## resolves all *.in files anew into their locks (LOCK_ARGS=--upgrade for newer versions)
	$(LOCK) $(LOCK_ARGS) docker/uv.in -o docker/uv.lock
	$(LOCK) $(LOCK_ARGS) docker/sbom.in -o docker/sbom.lock
	$(LOCK) $(LOCK_ARGS) local_test/requirements.in -o local_test/requirements.lock
	$(LOCK) local_test/cloud.in -c local_test/requirements.lock -o local_test/cloud.lock
	$(LOCK) $(LOCK_ARGS) examples/sdk_v3.in -o examples/sdk_v3.lock
	$(LOCK) examples/jupyter.in -c local_test/requirements.lock -o examples/jupyter.lock
	$(LOCK) docker/train.in -c local_test/requirements.lock -o docker/train.lock
	$(LOCK) docker/serve.in -c local_test/requirements.lock -o docker/serve.lock
	$(LOCK) docker/serve-torch.in -c local_test/requirements.lock -c docker/serve.lock \
	    --find-links $(TORCH_INDEX)/torch/ -o docker/serve-torch.lock
	$(VENV)/python -m container_serve.frontend.build --lock

images:  ## both images: scripts/build.sh, which has options for other bases, proxies and mirrors
	scripts/build.sh

clean:  ## removes results and caches, not .venv
	rm -rf local_test/out local_test/out.* local_test/tuning dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv*/*' -prune -exec rm -rf {} +
