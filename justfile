# What there is to do; `just` alone lists it.
default:
    @just --list

# Exactly what CI runs
check:
    ./scripts/test

# The tests alone, on one private PostgreSQL
test *ARGS:
    ./scripts/with-database cargo test --workspace {{ARGS}}

# Format everything
fmt:
    cargo fmt --all

# The lints
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The fences between the rooms, licences and sources
deny:
    cargo deny check bans licenses sources

# Start everything on this machine and open a session
up *ARGS:
    ./scripts/up {{ARGS}}

# What it can do beside what the machine can do, in one run
bench *ARGS:
    ./scripts/install --bench
    cargo build --release -p tidegate-bench -p tidegate-control-plane -p tidegate-agent-bin
    ./target/release/tidegate-bench {{ARGS}}

# kill -9 of everything at random points of 200 sessions
chaos *ARGS:
    ./scripts/chaos {{ARGS}}

# The same with 500 sessions, most of them containers, and a Docker engine that is killed, too: needs root
chaos-containers *ARGS:
    ./scripts/chaos --containers --sessions 500 {{ARGS}}

# A power cut under load: needs root and loop devices
power-cut *ARGS:
    ./scripts/power-cut {{ARGS}}

# kill -9 of control plane, nats-server and PostgreSQL while 8 senders send 10 000 messages
chaos-pipes *ARGS:
    ./scripts/chaos-pipes {{ARGS}}

# A power cut under the store of nats-server: needs root and loop devices
power-cut-pipes *ARGS:
    ./scripts/power-cut-pipes {{ARGS}}

# A minute of fuzzing for each decoder: needs the nightly toolchain and cargo-fuzz
fuzz SECONDS="60":
    for target in from_agent to_agent terminal_frame quantity; do cargo +nightly fuzz run $target -- -max_total_time={{SECONDS}} || exit 1; done
