# `make help` lists the targets. `make serve PYTHON_VERSION=3.12` uses that Python, for any target,
# in an environment of its own.
PYTHON_VERSION ?= 3
VENV ?= .venv$(if $(filter-out 3,$(PYTHON_VERSION)),-$(PYTHON_VERSION))
PYTHON := $(VENV)/bin/python
KERNEL := service/native/libdeepvit.so
# Extras of pyproject.toml: all that the service can use on CPUs, and what is for developers
SERVING := cpu redis grpc heif otel
DEVELOPING := $(SERVING) bulk ray export dev

# Tests of what a user's requests and exports go through, and the environment for test-oldest
CORE := tests/models tests/export tests/service/http tests/service/oip
OLDEST := $(VENV)-oldest

# How long `make fuzz` takes, and what makes its inputs
SECONDS ?= 3600
SEED ?= 0

# Modules are compiled once, whatever the shell's environment says: compiling them in each of the
# many processes of the tests would take a third of their time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve cluster test test-cluster test-js test-oldest check check-js format export evaluate bench soak fuzz docker help
.DELETE_ON_ERROR:

serve: $(PYTHON)  ## serve the bundled models on port 8000; the first run installs what that needs
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/serving.txt $(KERNEL)
	$(PYTHON) -m service --log-format text

cluster: $(VENV)/cluster.txt $(KERNEL)  ## serve the bundled models from two fronts and one engine, on Ray and a Redis
	@trap 'kill $$redis' EXIT; redis-server --port 6390 --bind 127.0.0.1 --save '' >/dev/null & redis=$$!; \
	DEEPVIT_STORE_URL=redis://127.0.0.1:6390 $(PYTHON) -m service.cluster --log-format text

test: $(VENV)/developing.txt $(KERNEL)  ## install what developers need, PyTorch too, and run the tests
	@$(MAKE) --silent test-js
	$(PYTHON) -m pytest --numprocesses auto

test-oldest: $(OLDEST)/installed.txt $(KERNEL)  ## the core of the tests with the oldest packages that pyproject.toml allows
	$(OLDEST)/bin/python -m pytest --numprocesses auto -o filterwarnings=default -o cache_dir=$(OLDEST)/.pytest_cache $(CORE)

check: $(VENV)/developing.txt  ## lint, types and the direction of imports
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	@$(MAKE) --silent check-js

format: $(VENV)/developing.txt  ## format the code, and fix what can be fixed by itself
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

check-js:  ## lint the explorer's JavaScript, where Node.js (18 or newer) is installed
	@if command -v npm >/dev/null; \
	then $(MAKE) --silent tests/web/node_modules && npm --prefix tests/web run --silent lint; \
	else echo 'check-js: skipped, npm is not installed'; fi

test-cluster: $(VENV)/developing.txt $(KERNEL)  ## kill fronts, engines and nodes of a cluster under load; minutes
	$(PYTHON) -m pytest -m 'slow or not slow' tests/service/cluster

test-js:  ## test the explorer's JavaScript modules, where Node.js is installed
	@if command -v node >/dev/null; then cd tests/web && node --test; \
	else echo 'test-js: skipped, Node.js is not installed'; fi

export: $(VENV)/developing.txt  ## export the bundled checkpoints anew, where that changes anything
	$(PYTHON) -m export.bundled models/zoo model_repository
	$(PYTHON) -m export.bundled tests/data/small tests/data/small/repository

evaluate: $(VENV)/developing.txt $(KERNEL)  ## IMAGES (a folder or tar of classes) over HTTP: accuracy, agreement with PyTorch
	$(PYTHON) -m tests.evaluate $(addprefix --images ,$(IMAGES)) $(addprefix --precision ,$(PRECISION)) $(addprefix --agreement ,$(AGREEMENT))

bench: $(VENV)/bench.txt $(KERNEL)  ## speed against what a user would run instead, as ratios
	$(PYTHON) -m tests.bench

soak: $(VENV)/developing.txt $(KERNEL)  ## 15 minutes of mixed traffic and attacks: every answer right, memory bounded
	$(PYTHON) -m tests.soak

fuzz: $(VENV)/developing.txt  ## changed images and inference requests for an hour, or SECONDS=600
	$(PYTHON) -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

docker:  ## build the image
	docker build --tag deepvit-inference .

help:  ## list these targets
	@sed -En 's/^([a-z-]+):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand --tabs=14

# The pip that Python brings resolves requirements twice as slowly as today's.
$(PYTHON):
	python$(PYTHON_VERSION) -m venv $(VENV)
	@$@ -m pip install --quiet --upgrade --constraint constraints.txt pip

$(VENV)/serving.txt: EXTRAS := $(SERVING)
$(VENV)/developing.txt: EXTRAS := $(DEVELOPING)
$(VENV)/cluster.txt: EXTRAS := $(SERVING) ray
$(VENV)/bench.txt: EXTRAS := $(DEVELOPING) bench

# What is installed: a list of requirements. The rooms themselves run from here. Python compiles
# modules when they are first imported, which is less than all of them.
$(VENV)/%.txt: pyproject.toml constraints.txt requirements.py | $(PYTHON)
	@echo 'Installing packages into $(VENV)'
	@$(PYTHON) requirements.py $(EXTRAS) >$@
	@$(PYTHON) -m pip install --quiet --no-compile --constraint constraints.txt --requirement $@

tests/web/node_modules: tests/web/package-lock.json
	npm ci --prefix tests/web --no-audit --no-fund --loglevel error
	@touch $@

$(OLDEST)/installed.txt: pyproject.toml constraints.txt requirements.py
	python$(PYTHON_VERSION) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	@$(OLDEST)/bin/python requirements.py --oldest $(DEVELOPING) >$@
	@$(OLDEST)/bin/python -m pip install --quiet --requirement $@

# For processors only: what is installed runs no models on GPUs. Without a C++ compiler, models are
# served without it.
$(KERNEL): $(wildcard service/native/*.cpp service/native/*.cu service/native/*.h service/native/*.py) | $(PYTHON)
	-NVCC= $(PYTHON) -m service.native
