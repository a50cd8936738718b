# SPDX-License-Identifier: GPL-2.0
#
# Every entry point by name; "make help" lists them. What the module is
# linked from is in Kbuild. The scripts keep tool chain and test kernels in
# a cache outside of this tree; what is built of this tree is in out/.

KDIR ?= /lib/modules/$(shell uname -r)/build

# The kernel's makefiles take no BINDGEN from the environment.
KBUILD = $(MAKE) -C $(KDIR) M=$(CURDIR) $(if $(BINDGEN),BINDGEN=$(BINDGEN))

modules: ## (default) raio.ko for KDIR=<kernel build directory>, the running kernel's
	@scripts/check-kdir $(KDIR)
	$(KBUILD) modules

modules_install: ## install that raio.ko
	$(KBUILD) modules_install

help: ## this list
	@sed -n 's/^\([a-z][a-z_-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | \
		expand -t 18 | sed 's/^/  make /'

prepare: ## get tool chain and kernel source (the others do so when needed)
	scripts/prepare

kernels: ## build the test kernels, fast and debug (inline is for make bench)
	scripts/kernel fast
	scripts/kernel debug

module: ## raio.ko for these test kernels, in out/fast and out/debug
	scripts/module fast
	scripts/module debug

tools: ## what runs in user space: libaio.so.1, raioctl, raio-stress, raio-differential, raio-bench
	cargo build --release --manifest-path tools/Cargo.toml
	tools/libaio/link.sh

libraio: ## the C library for raio's own calls, static and shared, in out/libraio
	scripts/libraio >/dev/null

fio-engine: ## fio's engine for raio, out/fio/raio.so, for the fio installed here
	scripts/fio-engine >/dev/null

demo: ## fio over raio, kernel AIO and io_uring, side by side
	scripts/demo

bench: ## what a request costs, by raio, kernel AIO, io_uring and bare bios (KERNEL=fast: in the kernel of gcc; B=lifetimes, growth or submit: that)
	scripts/bench $(or $(B),cost)

bench-check: ## the same; fails where raio's is over a bar, or more than on record
	scripts/bench cost --check

bench-submit: ## how long submit takes where there is something to wait for; pictures in out/bench
	scripts/bench submit

model: ## every interleaving of the ring's protocol, by loom
	cargo test --release --manifest-path tools/Cargo.toml -p raio-model

test: ## all tests; the last line counts them
	scripts/test

test-full: ## all tests, on more kinds of guests
	scripts/test --full

conformance: ## kernel AIO and raio do the same: libaio's own tests, 100,000 random sequences
	scripts/conformance

programs: ## fio, sysbench, stress-ng and MariaDB over raio (P=NAME: that one)
	scripts/programs $(P)

mutants: ## put old bugs back one by one; the tests must notice (M=NAME: that one)
	scripts/mutants $(M)

guest: ## a shell in a guest with raio.ko loaded (KERNEL=fast or debug)
	scripts/module $(or $(KERNEL),fast) >/dev/null
	scripts/guest --kernel $(or $(KERNEL),fast) --timeout 0 --shell

vng: ## a shell on this host's file tree, by virtme-ng
	scripts/module fast >/dev/null
	scripts/vng

clippy: ## the kernel's lints over the module
	scripts/module fast --out out/clippy CLIPPY=1

lint: ## formatting and style of everything: rustfmt, checkpatch, shellcheck
	scripts/lint

rustfmt-check: ## formatting of the Rust sources only
	scripts/lint rustfmt

doc: ## rustdoc of module and tools, in out/doc
	scripts/doc

clean: ## remove what was built here (the cache stays)
	rm -rf out tools/target
	find . \( -name '*.o' -o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' -o \
		-name '.*.cmd' -o -name modules.order -o -name Module.symvers -o \
		-name bindings_generated.rs \) -not -path './.git/*' -delete

.PHONY: modules modules_install help prepare kernels module tools libraio fio-engine demo bench bench-check bench-submit model test test-full conformance programs mutants \
	guest vng clippy lint rustfmt-check doc clean
