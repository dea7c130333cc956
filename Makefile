# make serve   build and serve the embedded tiny-r1 model on port 8000
# make test    packages, build, unit tests, fuzz corpora, structure checks, end-to-end suite
# See CONTRIBUTING.md for the other targets.

PRESET ?= release
BUILD := build/$(PRESET)
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: packages build cuda serve test unit e2e tidy lint format asan tsan fuzz bench clean

packages:
	@scripts/packages.sh test

$(BUILD)/build.ninja: | packages
	@cmake --preset $(PRESET)

build: packages $(BUILD)/build.ninja
	@cmake --build $(BUILD)

# With the CUDA backend; needs nvcc and cuBLASLt. Builds without a GPU, runs its device tests where there is one.
cuda:
	@$(MAKE) --no-print-directory build PRESET=cuda

serve: packages $(BUILD)/build.ninja
	@cmake --build $(BUILD) --target spillway
	@exec $(BUILD)/spillway serve $(ARGS)

unit: build
	@ctest --test-dir $(BUILD) --output-on-failure $(CTEST_ARGS)

tidy:
	@python3 -m unittest discover -s tests/tidy -p '*_test.py'

e2e: build
	@scripts/e2e.sh $(ARGS)

test: build
	@scripts/test.sh $(BUILD)

lint:
	@scripts/packages.sh lint
	@scripts/lint.sh

format:
	@git ls-files 'src/*.h' 'src/*.cc' 'tests/*.cc' | xargs clang-format -i

# With gcc 13 the AVX-512 kernels fault on stack-use-after-return frames and pass without them.
asan tsan: export ASAN_OPTIONS := detect_stack_use_after_return=0
tsan: export TSAN_OPTIONS := suppressions=$(CURDIR)/tests/tsan_suppressions.txt
# How libgrpc, which is not instrumented, hands things from thread to thread is not seen: all that it hands over is told as a race.
tsan: export CTEST_ARGS := -E '^grpc'
asan tsan:
	@$(MAKE) --no-print-directory unit PRESET=$@

fuzz:
	@scripts/packages.sh test fuzz
	@cmake --preset fuzz && cmake --build build/fuzz --target fuzzers
	@scripts/fuzz.sh build/fuzz

bench: build
	@scripts/bench.sh $(ARGS)

clean:
	rm -rf build
