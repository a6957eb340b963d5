# Everything installs itself on first use: see scripts/install-python and scripts/install-system.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# DICOM files for `make demo`; without any it draws a chest phantom.
FILES ?=
# Where `make up` keeps its data.
DATA ?= data
# The soak's random choices; printed, so that a run can be repeated.
SEED ?= $(shell date +%s)
# Of what `make bench` runs.
BENCHMARKS ?= messaging
# Whom inference is measured beside; in a folder of their own, for nothing else needs them.
ONNX ?= onnxruntime==1.31.1 tf2onnx==1.17.0 onnx==1.23.2
# What `make train` makes, learns from and starts from; data and backbone are no part of the project.
MODELS ?= chest-radiograph brain-mr-tumor breast-ultrasound skin-lesion
FOLDS ?= 5
COUNTERSIGN_TEST_DATA ?= ../shared/data
BACKBONE_WEIGHTS ?= $(firstword $(wildcard $(COUNTERSIGN_TEST_DATA)/../weights/mobilenet_v1*.h5))
data_of_chest-radiograph := chest --exclude-licence NC
data_of_brain-mr-tumor := brain --exclude-licence NC
data_of_breast-ultrasound := breast_us --exclude-licence NC
data_of_skin-lesion := skin

.PHONY: help demo up test soak check bench bench-ingest bench-inference train format docs constraints clean
.PHONY: installed installed-for-development installed-for-tests

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: installed ## Take one study from C-STORE to a signed report; FILES="a.dcm b.dcm" for your own.
	@.venv/bin/countersign demo $(FILES)

up: installed ## Run every service on this machine, with its data in DATA (default: data).
	@.venv/bin/countersign up --data $(DATA)

test: installed-for-tests ## Install what the tests need, and run them all.
	@.venv/bin/python scripts/run_tests.py

soak: installed-for-tests ## Kill and stop things for a long time; SEED=n repeats a run.
	@echo "soak: SEED=$(SEED)"
	@COUNTERSIGN_TEST_SEED=$(SEED) .venv/bin/python scripts/record_results.py "make soak SEED=$(SEED)" \
	  .venv/bin/python -m pytest -q -s -m soak --timeout 0 tests

check: installed-for-development ## Lint, type-check, and hold the architecture to its contracts.
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/python -m countersign.docs --check docs

bench: installed-for-tests bench-ingest bench-inference ## Measure; the figures go to bench/RESULTS.md.
	@for module in $(BENCHMARKS); do \
	  echo "===== python -m bench.$$module"; \
	  .venv/bin/python scripts/record_results.py "python -m bench.$$module" \
	    .venv/bin/python -m bench.$$module; \
	done

bench-ingest: installed-for-tests ## Measure receiving, beside storescp and Orthanc, for 20 to 40 minutes.
	@.venv/bin/python scripts/record_results.py "make bench-ingest" .venv/bin/python -m bench.ingest

bench-inference: installed-for-tests ## Measure a worker, beside ONNX Runtime, for 10 minutes.
	@[ -d .bench/onnxruntime ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-input --no-deps --target .bench $(ONNX)
	@.venv/bin/python scripts/record_results.py "make bench-inference" .venv/bin/python -m bench.inference

train: installed-for-development ## Train the reference MODELS; stopped, it goes on where it was.
	@$(foreach model,$(MODELS),.venv/bin/countersign train --recipe $(model) --folds $(FOLDS) \
	  --data $(COUNTERSIGN_TEST_DATA)/$(data_of_$(model)) --backbone-weights $(BACKBONE_WEIGHTS) \
	  --output models/$(model) --work-dir runs/$(model);)

format: installed-for-development ## Format the code.
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

docs: installed-for-development ## Write the generated pages of docs/ again.
	@.venv/bin/python -m countersign.docs docs

constraints: installed-for-tests ## Pin what is installed in .venv, after the tests have passed.
	@scripts/pin-constraints

clean: ## Remove what was installed and cached here; data stays.
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis \
	  tests/peers/fhir_server/node_modules

installed:
	@scripts/install-system demo
	@scripts/install-python

installed-for-development:
	@scripts/install-python dev

installed-for-tests:
	@scripts/install-system demo test
	@scripts/install-python dev
	@scripts/install-npm
