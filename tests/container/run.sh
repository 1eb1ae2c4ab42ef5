#!/usr/bin/env bash
# Builds the Dockerfile without a daemon, and runs its root under runc (`run.py`). As root, on Debian:
#   apt-get install --no-install-recommends buildah runc mmdebstrap
# Where no registry can be reached, the two base images are made here: Debian's own by mmdebstrap, and on it Rust's with
# the toolchain of this machine. They get the names that the Dockerfile asks for.
#
#   tests/container/run.sh [PROFILE]      PROFILE: a default seccomp profile in Docker's format, for the first run
set -euo pipefail
cd "$(dirname "$0")/../.."
export BUILDAH_ISOLATION=chroot
DEBIAN=debian:bookworm-slim
RUST=rust:1.95-bookworm

have() { buildah inspect --type image "$1" >/dev/null 2>&1 || buildah pull -q "$1" >/dev/null 2>&1; }

make_debian() {
  local work from
  work=$(mktemp -d)
  mmdebstrap --quiet --variant=minbase bookworm "$work/base.tar"
  from=$(buildah from scratch)
  buildah add -q "$from" "$work/base.tar" / >/dev/null
  buildah commit -q --rm "$from" "$DEBIAN"
  rm -r "$work"
}

make_rust() {
  local from root
  from=$(buildah from --pull-never "$DEBIAN")
  buildah run "$from" -- sh -c 'apt-get -q update && apt-get -q install -y --no-install-recommends gcc libc6-dev' >/dev/null
  root=$(buildah mount "$from")
  mkdir -p "$root/usr/local/rust" "$root/usr/local/cargo" "$root/etc/ssl/certs"
  cp -a "$(rustc --print sysroot)"/{bin,lib} "$root/usr/local/rust/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  buildah umount "$from" >/dev/null
  buildah config --env PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin --env CARGO_HOME=/usr/local/cargo "$from"
  buildah commit -q --rm "$from" "$RUST"
}

have "$DEBIAN" || make_debian
have "$RUST" || make_rust
# Crates that this machine has are not fetched again.
mkdir -p "${CARGO_HOME:-$HOME/.cargo}/registry"
buildah bud -q --pull-never --format docker --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo/registry" \
  -t localhost/forebay .
container=$(buildah from --pull-never localhost/forebay)
trap 'buildah rm "$container" >/dev/null' EXIT
python3 tests/container/run.py "$(buildah mount "$container")" ${1:+--default "$1"}
