# Each task is one command. `make` runs rustc itself, which needs neither a network nor a cargo home: cargo would resolve
# the dev-dependency first.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
EDITION := $(shell sed -n 's/^edition = "\(.*\)"/\1/p' Cargo.toml)
SOURCES := Cargo.toml Makefile $(shell find src www -type f)
RUSTC   ?= rustc
RELEASE := --edition=$(EDITION) --cap-lints=allow -C opt-level=2 -C codegen-units=1

# $(call binary,OUTPUT,FLAGS): the library, then the command linked with it.
define binary
	@mkdir -p $(dir $(1))
	CARGO_PKG_VERSION=$(VERSION) $(RUSTC) $(RELEASE) $(2) --crate-type=rlib --crate-name=newswire \
		--out-dir=$(dir $(1)) src/lib.rs
	CARGO_PKG_VERSION=$(VERSION) $(RUSTC) $(RELEASE) $(2) -C lto=fat -C strip=symbols \
		--extern newswire=$(dir $(1))libnewswire.rlib -o $(1) src/main.rs
endef

build: target/newswire

target/newswire: $(SOURCES)
	$(call binary,$@)

# One file that starts in an empty directory, without any library of the system.
static: target/static/newswire

target/static/newswire: $(SOURCES)
	$(call binary,$@,-C target-feature=+crt-static)

# The server with the page and the words, on http://127.0.0.1:8080/
run: target/newswire
	@target/newswire serve --publish-open

test:
	cargo test

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	for package in attack bench; do \
		cargo clippy --manifest-path tests/$$package/Cargo.toml -- -D warnings || exit 1; \
	done
	# The fuzz targets need a C++ compiler to be built, which is not asked of a machine here.
	for package in attack bench fuzz; do \
		cargo fmt --check --manifest-path tests/$$package/Cargo.toml || exit 1; \
	done

# Real clients of PyPI and npm against target/newswire. They are installed under tests/compat.
compat: target/newswire
	python3 tests/compat/run.py target/newswire

# The page in Chromium, Firefox and WebKitGTK. Their drivers are installed under tests/engines.
engines: target/newswire
	python3 tests/engines/run.py target/newswire

doc:
	cargo doc --no-deps --open

# newswire and its peers side by side, in one run of about an hour. FLAGS="--rounds 1" takes twenty minutes, and
# FLAGS="--quick" a few.
bench: target/newswire
	cargo run --release --manifest-path tests/bench/Cargo.toml -- --newswire target/newswire $(FLAGS)

# newswire under attack: floods and half a million connections; a long run; kills. Each prints what it saw.
attack soak kill: target/newswire
	cargo run --release --manifest-path tests/attack/Cargo.toml -- \
		$(@:attack=flood) --newswire target/newswire $(FLAGS)

clean:
	rm -rf target tests/*/target tests/compat/.venv tests/compat/node_modules

.PHONY: build static run test check compat engines doc bench attack soak kill clean
