# make setup installs from Debian's packages what is missing; the targets that need it call it.
.PHONY: all compile test check check-macos bench analyze demo soak otp-matrix clean setup libraries peers ct rust-test properties

# A table and _build/bench/results.json; CASE=name measures one case.
CASE =

all: compile

compile:
	rebar3 compile

setup:
	@sh test/setup.sh

# All that the demo needs.
libraries: setup
	@sh test/peers.sh

peers: libraries
	@sh test/setup.sh browser || echo 'no Chromium: reports are not looked at in a browser'
	@sh test/mcp_peers.sh

# The last line is `N passed, N failed'.
test: peers
	@sh test/run.sh rust ct properties

rust-test: setup
	@sh test/run.sh rust

ct: peers
	@sh test/run.sh ct

properties: peers
	@sh test/run.sh ct properties

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	rebar3 as check do compile, xref, dialyzer
	sh test/takeover_check.sh
	sh test/format.sh
	sh test/structure.sh

# Whether the Rust code compiles for macOS too. Needs rustup.
check-macos:
	sh test/macos.sh

bench: peers
	sh bench/run.sh $(CASE)

# All analyses on nif, port, beam and the technique of erlmcp 0.5: a table on the terminal,
# _build/analysis/report.html and report.json. ONLY="registry restart" runs some of them, QUICK=1
# a first look, BEFORE=report.json compares with an earlier run.
analyze: libraries
	sh bench/analyze.sh

soak: libraries
	sh bench/run.sh soak http_soak

demo: libraries
	sh test/demo/run.sh

# The suites on OTP 27 and the newest release, each in a chroot; OTP_MATRIX_DIR says where.
otp-matrix: libraries
	sh test/otp_matrix.sh

# The chroots below _build stay: rm -r them by hand.
clean:
	rm -rf priv native/.library.stamp native/.takeover.stamp
	cargo clean
	find _build -mindepth 1 -maxdepth 1 ! -name otp -exec rm -rf {} +
