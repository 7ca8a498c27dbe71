PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help install test long check demo report-tiny tiny ablations clean

help:  ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=$(PYTHON)  TORCH='$(TORCH)'  (TORCH is what pip installs first: name a CUDA build here, then make clean install)"

install: $(STAMP)  ## create .venv and install the package with its development tools

# torch comes first and alone, and its version is held from then on: nothing may replace it by another build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(PIP) install $(TORCH)
	grep -v '^torch==' constraints.txt > .venv/constraints.txt
	$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> .venv/constraints.txt
	PIP_CONSTRAINT=.venv/constraints.txt $(PIP) install -e '.[dev]'
	touch $@

test: install check  ## lint, types and all tests; skipped ones are listed with their reasons
	HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 -rs -m 'not long'

long: install  ## the tests that take minutes each: fuzzing and load of the server
	HF_HUB_OFFLINE=1 $(BIN)/pytest -m long

check: install  ## lint, format and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install  ## ask the embedded model about a generated video, or about VIDEO=path
	$(BIN)/vcflash demo $(if $(VIDEO),--video '$(VIDEO)')

report-tiny: install  ## measure the embedded model; SEED= and HAYSTACK= change the videos
	$(BIN)/python -m videochat_flash.train.report $(if $(SEED),--seed $(SEED)) $(if $(HAYSTACK),--haystack '$(HAYSTACK)')

# On a CPU every step gives its memory back to the system and asks for it again, unless malloc is told to keep it.
TRAIN := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 $(BIN)/vcflash train

tiny: install  ## train the embedded model anew by recipes/tiny, stage after stage; a stopped one goes on
	for stage in recipes/tiny/stage*.toml; do $(TRAIN) $$stage $(if $(SET),--set '$(SET)') || exit; done

ablations: install  ## the paper's ablations in small, three seeds each; a stopped one goes on
	for folder in recipes/ablations/*/; do $(BIN)/python -m videochat_flash.train.ablate $$folder || exit; done

clean:  ## remove .venv and every cache
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
