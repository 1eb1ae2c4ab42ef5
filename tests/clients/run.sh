#!/bin/bash
# run.sh [--driver ring|epoll|both|none] [--only NAME] [--list] [--keep]     (default: both)
# run.sh --selftest [FAULT]     the scenarios behind a router that does one thing wrong: each must notice its fault
# Runs the real clients through the real forebay, and judges by what passed on the wire. Nothing but loopback is needed, and where the
# machine allows it nothing else can be reached: all of it runs in a network namespace of its own.
#
# The clients come from tests/clients/install.sh; the provider is `forebay sim`.
#   FOREBAY_BIN               the binary to test; without it one is built with cargo build --release
#   FOREBAY_CLIENTS           where the clients are
#   FOREBAY_CLIENTS_PROVIDER  another provider's command line, with {port} in it
# Exit: 0 all passed, 1 some failed, 2 usage, 3 something could not be started.
set -eu
cd "$(dirname "$0")/../.."

# Without a router, and with another provider, forebay is not needed at all.
case " $* " in
  *" --list "* | *" --help "* | *" -h "*) NEEDED= ;;
  *" --driver none "* | *" --driver=none "* | *" --selftest "*) NEEDED=${FOREBAY_CLIENTS_PROVIDER:+no} NEEDED=${NEEDED:-yes} ;;
  *) NEEDED=yes ;;
esac
if [ "$NEEDED" = yes ]; then
  if [ -z "${FOREBAY_BIN:-}" ]; then
    cargo build --release --quiet
    FOREBAY_BIN=${CARGO_TARGET_DIR:-target}/release/forebay
  fi
  FOREBAY_BIN=$(realpath "$FOREBAY_BIN")
  export FOREBAY_BIN
fi

RUN=(python3 tests/clients/harness/main.py "$@")
if [ "${1:-}" = --selftest ]; then RUN=(python3 tests/clients/harness/selftest.py "${@:2}"); fi
if [ "$(id -u)" = 0 ]; then ALONE=(unshare -n); else ALONE=(unshare -rn); fi
if [ -z "${FOREBAY_CLIENTS_SHARED_NETWORK:-}" ] && "${ALONE[@]}" -- ip link set lo up 2>/dev/null; then
  exec "${ALONE[@]}" -- bash -c 'ip link set lo up && exec "$@"' run.sh "${RUN[@]}"
fi
echo "run.sh: no network namespace here, the clients may look for other hosts" >&2
exec "${RUN[@]}"
