PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help install test long check demo eval-tiny eval-env test-eval report-tiny bench bench-gpu tiny ablations longvid-proof clean

help:  ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
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
	HF_HUB_OFFLINE=1 $(BIN)/pytest -s -m long

check: install  ## lint, format and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install  ## ask the embedded model about a generated video, or about VIDEO=path
	$(BIN)/vcflash demo $(if $(VIDEO),--video '$(VIDEO)')

eval-tiny: install  ## ask the embedded model the synthetic suite: eight drawn videos, every kind of question
	rm -rf runs/suite
	$(BIN)/vcflash synth suite --out runs/suite
	$(BIN)/vcflash eval runs/suite/suite.jsonl --prompt question --out runs/suite/flash-tiny

# lmms-eval asks for another PyAV and for a torchvision that has no build beside this torch: it comes without what it asks
# for, and with what it uses. A task of its own may need more: pip says what.
EVAL := .venv-eval
LMMS_EVAL := lmms_eval==0.7.3
LMMS_USES := accelerate aiohttp datasets decord evaluate httpx jinja2 loguru opencv-python-headless pandas \
  pytablewriter python-dotenv pytz pyyaml requests sacrebleu tenacity tqdm transformers

eval-env: $(EVAL)/.installed  ## create .venv-eval, in which lmms-eval and this package both work

$(EVAL)/.installed: pyproject.toml constraints-eval.txt
	test -x $(EVAL)/bin/pip || $(PYTHON) -m venv $(EVAL)
	$(EVAL)/bin/pip --disable-pip-version-check --quiet install $(TORCH)
	grep -v '^torch==' constraints-eval.txt > $(EVAL)/constraints.txt
	$(EVAL)/bin/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> $(EVAL)/constraints.txt
	PIP_CONSTRAINT=$(EVAL)/constraints.txt $(EVAL)/bin/pip --disable-pip-version-check --quiet install \
	  $(LMMS_USES) pytest hypothesis beartype -e '.[eval]'
	$(EVAL)/bin/pip --disable-pip-version-check --quiet install --no-deps $(LMMS_EVAL)
	touch $@

test-eval: eval-env  ## the tests of our model and tasks in lmms-eval itself, minutes
	HF_HUB_OFFLINE=1 $(EVAL)/bin/pytest -rs tests/eval/lmms

report-tiny: install  ## measure the embedded model; SEED= and HAYSTACK= change the videos
	$(BIN)/python -m videochat_flash.train.report --frames 64,256,1024 --hops 60 --grounding 60 --named $(if $(SEED),--seed $(SEED)) $(if $(HAYSTACK),--haystack '$(HAYSTACK)')

BENCH := $(BIN)/vcflash bench --write docs/benchmarks.md
EIGHTH := --model umt-qwen-eighth --random-weights --dtype bfloat16
FILM ?= runs/film.mp4

bench: install $(FILM)  ## measure this machine into docs/benchmarks.md; FILM= is a file of 20 minutes, else one is made
	$(BENCH) --video '$(FILM)' --frames 256,1024 --out docs/benchmarks/flash-tiny
	$(BENCH) --video '$(FILM)' --frames 256,10000 --repeats 1 --warmup 0
	$(BENCH) --video '$(FILM)' --frames 256 $(EIGHTH) --out docs/benchmarks/umt-qwen-eighth
	$(BENCH) --video '$(FILM)' --compare all
	$(BENCH) --compare seeing,prefill,asking $(EIGHTH)
	for plan in off 4:0.75,18:0.25; do \
	  $(BENCH) --plan --device H200 --model VideoChat-Flash-Qwen2-7B_res224 --frames 2048,10000 --keep $$plan || exit; \
	done

GPU := $(BENCH) --random-weights --device cuda --no-whole
DROPPED := --keep 4:0.75,18:0.25 --repeats 1
PICTURES := --out docs/benchmarks/gpu

bench-gpu: install  ## measure a GPU with the released models' sizes into docs/benchmarks.md; minutes, 34 GB of its memory
	$(GPU) --model VideoChat-Flash-Qwen2-7B_res224 --size 224x224 --frames 2048 --keep off $(PICTURES)/7b-2048
	$(GPU) --model VideoChat-Flash-Qwen2-7B_res224 --size 224x224 --frames 10000 --keep off --repeats 1 --max-new-tokens 32 $(PICTURES)/7b-10000
	$(GPU) --model VideoChat-Flash-Qwen2-7B_res224 --size 224x224 --frames 10000 $(DROPPED) --max-new-tokens 32 $(PICTURES)/7b-10000-dropout
	$(GPU) --model VideoChat-Flash-Qwen2-7B_res448 --size 448x448 --frames 10000 $(DROPPED) $(PICTURES)/7b-448-10000-dropout
	$(GPU) --model VideoChat-Flash-Qwen2_5-2B_res448 --size 448x448 --frames 10000 $(DROPPED) $(PICTURES)/2b-448-10000-dropout

runs/film.mp4: | install
	mkdir -p runs
	$(BIN)/vcflash synth needle --frames 30000 --fps 25 --size 640x360 --questions 1 --out $@

PROCESSES ?= 1
MANY := OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(PROCESSES) -m videochat_flash.cli
# On a CPU every step gives its memory back to the system and asks for it again, unless malloc is told to keep it.
TRAIN = MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 $(if $(filter 1,$(PROCESSES)),$(BIN)/vcflash,$(MANY)) train

tiny: install  ## train the embedded model anew by recipes/tiny, stage after stage; a stopped one goes on. PROCESSES= a CPU's cores
	for stage in recipes/tiny/stage*.toml; do $(TRAIN) $$stage $(if $(SET),--set '$(SET)') || exit; done

PROOF ?= runs/longvid
EXAM := $(BIN)/vcflash longvid exam $(PROOF)/built
WEIGHTS := videochat_flash/assets/flash-tiny/model.safetensors

longvid-proof: $(PROOF)/after.txt  ## two hours of rendered video through all of longvid, every answer checked; then flash-tiny learns from them
	@tail -n +1 $(PROOF)/before.txt $(PROOF)/after.txt

# HAYSTACK= are real videos to draw over. Each file is made once: what was stopped goes on, and other weights are asked and trained anew.
$(PROOF)/finetune.toml: | install
	$(BIN)/vcflash longvid proof --out $(PROOF) $(foreach video,$(HAYSTACK),--haystack '$(video)')

$(PROOF)/before.txt: $(PROOF)/finetune.toml $(WEIGHTS)
	rm -rf $(PROOF)/run
	$(EXAM) > $@.part
	mv $@.part $@

$(PROOF)/after.txt: $(PROOF)/before.txt
	$(TRAIN) $(PROOF)/finetune.toml
	$(EXAM) --model $(PROOF)/run/model > $@.part
	mv $@.part $@

ablations: install  ## the paper's ablations in small, three seeds each; a stopped one goes on
	for folder in recipes/ablations/*/; do $(BIN)/python -m videochat_flash.train.ablate $$folder || exit; done

clean:  ## remove both environments and every cache
	rm -rf .venv $(EVAL) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
