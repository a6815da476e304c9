# Everything is one command. What is built by rustc itself needs neither a network nor a cargo home: cargo would want to
# resolve the dev-dependency first.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
EDITION := $(shell sed -n 's/^edition = "\(.*\)"/\1/p' Cargo.toml)
SOURCES := Cargo.toml Makefile $(shell find src www -type f)
RUSTC   ?= rustc
RELEASE := --edition=$(EDITION) --cap-lints=allow -C opt-level=s -C codegen-units=1

build: target/newswire

target/newswire: $(SOURCES)
	@mkdir -p target/rustc
	CARGO_PKG_VERSION=$(VERSION) $(RUSTC) $(RELEASE) --crate-type=rlib --crate-name=newswire \
		--out-dir target/rustc src/lib.rs
	CARGO_PKG_VERSION=$(VERSION) $(RUSTC) $(RELEASE) -C lto=fat -C strip=symbols \
		--extern newswire=target/rustc/libnewswire.rlib -o $@ src/main.rs

# The server with the page and the words, on http://127.0.0.1:8080/
run: target/newswire
	@target/newswire serve --publish-open

test:
	cargo test

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

doc:
	cargo doc --no-deps --open

clean:
	rm -rf target

.PHONY: build run test check doc clean
