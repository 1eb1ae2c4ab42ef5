#!/usr/bin/env bash
# scan.sh     What strangers' tools say of a listener with TLS: curl, openssl s_client, testssl.sh. Nothing but loopback is used.
# Needs openssl, curl, python3 and testssl.sh, which is installed where that may be (Debian, as root). FOREBAY_BIN names the binary
# to look at; without it one is built with cargo build --release. Exit: 0 when nothing is of severity HIGH or above, and sessions
# resume. --keep leaves testssl.txt and found.json in this folder.
set -euo pipefail
cd "$(dirname "$0")/../.."

find_testssl() { command -v testssl || command -v testssl.sh; }
if ! find_testssl >/dev/null && [ "$(id -u)" = 0 ]; then
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends testssl.sh bsdextrautils dnsutils curl >/dev/null
fi
TESTSSL=$(find_testssl) || { echo "testssl.sh is missing (Debian: testssl.sh)" >&2; exit 2; }
if [ -z "${FOREBAY_BIN:-}" ]; then
  cargo build --release --quiet
  FOREBAY_BIN=${CARGO_TARGET_DIR:-target}/release/forebay
fi
work=$(mktemp -d)
pids=()
finish() { [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT

# A CA of an org's own and a certificate of its: what docs/tls.md asks for.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj "/CN=The Org's CA" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout "$work/tls.key" -out "$work/tls.csr" 2>/dev/null
printf '%s\n' "subjectAltName=DNS:localhost,IP:127.0.0.1" "extendedKeyUsage=serverAuth" "keyUsage=critical,digitalSignature" \
  "basicConstraints=critical,CA:FALSE" >"$work/tls.ext"
openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 90 -extfile "$work/tls.ext" -out "$work/tls.crt" 2>/dev/null
chmod 600 "$work"/*.key
cat >"$work/forebay.toml" <<TOML
[listen]
address = "127.0.0.1:0"
tls = { cert = "tls.crt", key = "tls.key" }
[[upstream]]
name = "none"
provider = "anthropic-compatible"
base_url = "http://127.0.0.1:9"
auth = "none"
TOML
"$FOREBAY_BIN" serve --config "$work/forebay.toml" >"$work/log" 2>"$work/said" &
pids+=($!)
for _ in $(seq 100); do
  port=$(sed -n 's|.*listening on https://127\.0\.0\.1:\([0-9]*\).*|\1|p' "$work/said")
  [ -z "$port" ] || break
  sleep 0.1
done
[ -n "$port" ] || { cat "$work/said" >&2; exit 1; }
failed=0
say() { printf '%-34s %s\n' "$1" "$2"; }
check() { # what, wanted, got
  if [ "$2" = "$3" ]; then say "$1" "$3"; else say "$1" "FAILED: $3, wanted $2"; failed=1; fi
}

for version in 1.2 1.3; do
  status=$(curl -sS --cacert "$work/ca.pem" --tlsv$version --tls-max $version -o /dev/null -w '%{http_code}' "https://localhost:$port/api/hello")
  check "curl, TLS $version" 200 "$status"
done
status=$(curl -sS --tlsv1.1 --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 -o /dev/null "https://localhost:$port/api/hello" 2>/dev/null && echo taken || echo refused)
check "curl, TLS 1.1" refused "$status"

# Five connections with the first one's session (TLS 1.2), and one with the ticket of another (TLS 1.3).
client() { openssl s_client -connect "127.0.0.1:$port" -servername localhost -CAfile "$work/ca.pem" -verify_return_error "$@" 2>/dev/null; }
check "s_client, verified" "Verify return code: 0 (ok)" "$(client </dev/null | grep -m 1 -o 'Verify return code: .*')"
check "s_client -reconnect, TLS 1.2" 5 "$(client -tls1_2 -reconnect </dev/null | grep -c '^Reused, TLSv1.2')"
hello() { printf 'GET /api/hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n'; sleep 1; }
hello | client -tls1_3 -ign_eof -sess_out "$work/session" >/dev/null || true
check "s_client -sess_in, TLS 1.3" 1 "$(hello | client -tls1_3 -ign_eof -sess_in "$work/session" | grep -c '^Reused, TLSv1.3')"

# testssl.sh. A CA of one's own has nowhere to publish what it takes back: what is said of the certificate itself is shown only.
"$TESTSSL" --quiet --color 0 --warnings off --ip one --add-ca "$work/ca.pem" --jsonfile "$work/found.json" \
  "https://localhost:$port" >"$work/testssl.txt" 2>&1 || true
python3 - "$work/found.json" <<'PYTHON' || failed=1
import collections, json, sys

found = json.load(open(sys.argv[1]))
counts = collections.Counter(finding["severity"] for finding in found)
# Of the certificate that was made for this scan, and not of the server.
OURS = {"cert_revocation", "DNS_CAArecord"}
serious = [f for f in found if f["severity"] in ("HIGH", "CRITICAL", "FATAL")]
for finding in found:
    if finding["severity"] not in ("OK", "INFO", "DEBUG"):
        print("  %-9s %-28s %s" % (finding["severity"], finding["id"], finding["finding"][:120]))
bad = [f for f in serious if f["id"].split(" ")[0] not in OURS]
wanted = {"SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "heartbleed", "ROBOT", "secure_renego"}
missing = wanted - {f["id"] for f in found}
print("%-34s %d findings: %s; %d serious" % ("testssl.sh", len(found), dict(counts), len(bad)))
if missing:
    print("  it did not look at %s" % ", ".join(sorted(missing)))
sys.exit(bool(bad or missing))
PYTHON
kill -0 "${pids[0]}" || { echo "forebay did not survive it"; failed=1; }
[ "${1:-}" != --keep ] || cp "$work/testssl.txt" "$work/found.json" .
exit $failed
