# Everything is done by tools/; this names it. Interpreters and builds are kept in a cache folder outside the
# checkout (see tools/pythons --help). A second run reuses them.

.PHONY: help demo test test-core test-tsan test-asan test-models test-fuzz test-python test-instructions packages packages-times lint format
.DEFAULT_GOAL := help

help: ## show this
	@grep -E '^[a-zA-Z%.-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

demo: ## analyse the standard library, then images, on every kind of pool, and compare (ARGS='--path DIR' for another tree)
	@name=$$(tools/pythons --any) && exec tools/py "$$name" -m plait demo $(ARGS)

test: ## everything, on every interpreter that can be had
	@tools/test

test-core: ## the C tests, with all assertions and as released
	@tools/test core core-release

test-tsan: ## the C tests under ThreadSanitizer
	@tools/test tsan

test-asan: ## the C tests under AddressSanitizer and UBSan
	@tools/test asan

test-models: ## the models of the lock-free protocols
	@tools/test models

test-fuzz: ## a short run of each fuzz target (FUZZ_SECONDS=20)
	@tools/test fuzz

test-python: ## the Python tests on every interpreter (PYTEST_ARGS='-k map')
	@tools/test python

test-python-%: ## the Python tests on one interpreter: make test-python-3.14
	@tools/test python-$*

test-instructions: ## instruction counts of the hot paths against their bounds
	@tools/test instructions

packages: ## well-known packages in interpreter workers; writes the table of docs/isolation.md
	@PACKAGES_TABLE=docs/isolation.md tools/test packages

packages-times: ## only the throughput in that table, measured anew; the machine should be quiet
	@PACKAGES_TABLE=docs/isolation.md tools/test packages-times

lint: ## ruff, clang-format, mypy, stubtest
	@tools/test lint

format: ## format C and Python in place
	@tools/format
