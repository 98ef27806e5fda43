VENV ?= .venv
PYTHON := $(VENV)/bin/python
MODELS := deepvit16-cifar10 vit16-cifar10
EXPORTED := $(MODELS:%=model_repository/%)
KERNEL := service/native/libdeepvit.so

.PHONY: serve test check export evaluate bench soak docker

serve: $(EXPORTED) $(KERNEL)  ## set up everything, export the bundled models and serve them on port 8000
	$(PYTHON) -m service --log-format text

test: $(VENV)/installed $(KERNEL)  ## set up and run the tests
	$(PYTHON) -m pytest

check: $(VENV)/installed  ## lint, types and the direction of imports
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

export: $(EXPORTED)  ## export the bundled models

evaluate: $(EXPORTED) $(KERNEL)  ## CIFAR-10 over HTTP: accuracy, agreement with PyTorch, throughput
	$(PYTHON) -m tests.evaluate

bench: $(EXPORTED) $(KERNEL) $(VENV)/peers  ## speed against what a user would run instead, as ratios
	$(PYTHON) -m tests.bench

soak: $(EXPORTED) $(KERNEL)  ## five minutes of mixed traffic: every answer right, memory bounded
	$(PYTHON) -m tests.soak

docker:  ## build the image
	docker build --tag deepvit-inference .

SOURCES := $(wildcard models/*.py export/*.py)

model_repository/%: models/zoo/%.safetensors $(SOURCES) | $(VENV)/installed
	$(PYTHON) -m export $< --name $*
	@touch $@

# Without a C++ compiler, models are served without it.
$(KERNEL): $(wildcard service/native/*.cpp service/native/*.cu service/native/*.h service/native/*.py) | $(VENV)/installed
	-$(PYTHON) -m service.native

$(VENV)/peers: $(VENV)/installed
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(VENV)/installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[cpu,redis,grpc,otel,export,dev]'
	@touch $@
