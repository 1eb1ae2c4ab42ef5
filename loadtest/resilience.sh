#!/usr/bin/env bash
# What forebay does when clients leave, mean harm or are many, and when its configuration or certificate changes; nginx
# beside it as the control, on both of forebay's drivers. Prints PASS, FAIL or VOID for every claim; exits with 1 when
# one fails. With --out DIR keeps the rows, the table and the machine's description there.
#
#   loadtest/resilience.sh [--rounds N] [--seconds S] [--only WORDS] [--out DIR] [--no-build] [--nice N]
#
# WORDS, of: cancel hostile memory reload swap; `hostile:churn` is one of hostile's cases. Rounds are interleaved, each
# begins with another system, and a round in which nginx itself misses a bound does not count. Every run has a fresh proxy
# on CPU 0; provider and clients are on CPU 1. About six minutes a round; memory, which other programs do not change, is
# looked at in the first round only. --nice is for a machine that others use too: everything that is started here gets
# that niceness; below 0 that takes root.
# Needs: nginx (Debian: nginx-light), openssl, taskset, two CPUs, a hard limit of 16000 open files (`forebay-load` and
# this script raise the soft one themselves). Only loopback is used; everything started here is stopped here.
set -euo pipefail
cd "$(dirname "$0")/.."
source loadtest/stage.sh

rounds=3 seconds=5 out="" build=1 only="" nice=0
while (($#)); do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --only) only=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        --nice) nice=$2; shift 2 ;;
        -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
done
need taskset openssl
[[ $(ulimit -n) == unlimited ]] || (($(ulimit -n) >= 16000)) || { echo "raise the hard limit of open files to 16000" >&2; exit 1; }

target=${CARGO_TARGET_DIR:-target}/release
((build)) && cargo build --release --bin forebay --bin forebay-load
forebay=$target/forebay load=$target/forebay-load

# What is started below inherits it.
((nice == 0)) || renice -n "$nice" -p $$ >/dev/null || { echo "--nice $nice is not allowed here" >&2; exit 1; }

provider_pid="" proxy_pid="" run=""
started() { echo "$run" "$proxy_pid" "$provider_pid"; }
open_stage

taskset -c 1 "$load" provider >"$dir/provider.out" & provider_pid=$!
provider=$(await "$dir/provider.out" "listening on ")
# The scenario `cancel` is its own provider, here.
mapfile -t ports < <("$load" free-ports 2)
own_provider=127.0.0.1:${ports[0]} nginx_port=${ports[1]}

# --- a CA, and two certificates of its own
certificates() {
    local name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=load test CA" \
        -keyout "$dir/ca.key" -out "$dir/ca.crt"
    for name in a b; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$dir/$name.key" -out "$dir/$name.csr"
        openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
            -extfile <(printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n') -out "$dir/$name.crt"
    done
}
certificates 2>"$dir/openssl.out" || { cat "$dir/openssl.out" >&2; exit 1; }

# --- a fresh proxy: its address is then in `to`, its processes in `who`, its file in `file`
key=load-test-key
hash=$(printf %s "$key" | sha256sum | cut -d' ' -f1)
to="" file="" admin="" who=()
start_nginx() { # PROVIDER TLS
    local tls="" ssl=""
    [[ $2 ]] && tls="ssl_certificate $dir/live.crt; ssl_certificate_key $dir/live.key; ssl_session_cache shared:s:1m;" ssl=ssl
    file=$dir/nginx.conf
    cat >"$file" <<CONF
daemon off;
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
pid $dir/nginx.pid;
error_log $dir/nginx.err warn;
events { worker_connections 16000; }
http {
    access_log off;
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 20m;
    keepalive_requests 100000000;
    tcp_nodelay on;
    upstream provider { server $1; keepalive 256; keepalive_requests 100000000; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 600s;
    $tls
    server {
        listen 127.0.0.1:$nginx_port reuseport backlog=4096 $ssl;
        location / {
            proxy_pass http://provider;
            proxy_buffering off;
        }
    }
}
CONF
    rm -f "$dir/nginx.pid"
    taskset -c 0 "$nginx" -p "$dir" -c "$file" 2>"$dir/nginx.out" & proxy_pid=$!
    local children=""
    for _ in $(seq 100); do
        [[ -s $dir/nginx.pid ]] && children=$(cat /proc/$proxy_pid/task/$proxy_pid/children) && [[ $children ]] && break
        sleep 0.1
    done
    [[ $children ]] || { cat "$dir/nginx.out" "$dir/nginx.err" >&2; exit 1; }
    to=127.0.0.1:$nginx_port who=(--pid "$proxy_pid" --pid "${children%% *}")
}
start_forebay() { # PROVIDER TLS DRIVER
    local tls="" scheme=http
    [[ $2 ]] && tls="tls = { cert = \"live.crt\", key = \"live.key\" }" scheme=https
    file=$dir/forebay.toml
    cat >"$file" <<CONF
[listen]
address = "127.0.0.1:0"
$tls
[admin]
address = "127.0.0.1:0"
[runtime]
workers = 1
driver = "$3"
[log]
format = "json"
[[upstream]]
name = "provider"
provider = "anthropic"
base_url = "http://$1"
credentials = [{ name = "org", env = "LOAD_PROVIDER_KEY" }]
[[key]]
name = "load"
hash = "sha256:$hash"
CONF
    LOAD_PROVIDER_KEY=sk-load taskset -c 0 "$forebay" serve --config "$file" >/dev/null 2>"$dir/forebay.err" & proxy_pid=$!
    to=$(await "$dir/forebay.err" "listening on $scheme://")
    admin=$(await "$dir/forebay.err" "admin on http://")
    who=(--pid "$proxy_pid")
    sed -n 's/.*with \([0-9]* workers.*\)/forebay: \1/p' "$dir/forebay.err" >>"$dir/drivers.txt"
}
stop_proxy() { # SYSTEM
    # nginx takes its workers with it at once. forebay would wait for streams; nobody does, here.
    if [[ $1 == nginx ]]; then kill "$proxy_pid" 2>/dev/null || true; else kill -KILL "$proxy_pid" 2>/dev/null || true; fi
    wait "$proxy_pid" 2>/dev/null || true
    proxy_pid=""
    cat "$dir/nginx.err" >>"$dir/nginx.all" 2>/dev/null || true
    rm -f "$dir/nginx.err"
}

# --- rounds
rows=$dir/rows.jsonl
failed=0
[[ -z $out ]] || { mkdir -p "$out" && : >"$out/rows.jsonl"; }
: >"$rows"
shoot() { # ROUND SYSTEM SCENARIO ARGUMENTS...
    local round=$1 system=$2 scenario=$3 name behind=$provider tls="" more=()
    shift 3
    case $scenario in
        cancel) behind=$own_provider more=(--be "$own_provider") ;;
        swap)
            tls=1 more=(--ca "$dir/ca.crt" --live "$dir/live.crt" "$dir/live.key" --pairs "$dir/a.crt" "$dir/a.key" "$dir/b.crt" "$dir/b.key")
            cp "$dir/a.crt" "$dir/live.crt" && cp "$dir/a.key" "$dir/live.key" ;;
    esac
    case $system in
        nginx) name=nginx; start_nginx "$behind" "$tls" ;;
        ring) name="forebay, io_uring"; start_forebay "$behind" "$tls" auto ;;
        epoll) name="forebay, epoll"; start_forebay "$behind" "$tls" epoll ;;
    esac
    case $scenario-$system in
        swap-nginx) more+=(--hang-up "$proxy_pid") ;;
        reload-nginx) more=(--file "$file" --good $'\n# {n}\n' --bad $'\nbroken {\n' --hang-up "$proxy_pid") ;;
        reload-*)
            more=(--file "$file" --admin "$admin" --bad $'\n[[key]]\nname = "broken\n'
                --good $'\n[[key]]\nname = "extra-{n}"\nhash = "sha256:'"$(printf extra | sha256sum | cut -d' ' -f1)"$'"\n') ;;
    esac
    # In the background, so that a signal is heeded at once; bounded, so that nothing can hang.
    timeout 240 taskset -c 1 "$load" "$scenario" --to "$to" --key "$key" "${who[@]}" --provider "$provider" \
        --provider-pid "$provider_pid" --seconds "$seconds" --round "$round" --system "$name" "${more[@]}" "$@" >"$dir/row" & run=$!
    if wait "$run"; then
        cat "$dir/row" >>"$rows"
        [[ -z $out ]] || cat "$dir/row" >>"$out/rows.jsonl"
    else
        echo "round $round, $name, $scenario $*: could not be run to its end" >&2
        failed=1
    fi
    run=""
    stop_proxy "$system"
}
case_of() { # ROUND SCENARIO ARGUMENTS...
    local round=$1 scenario=$2 systems=(nginx ring epoll) order i
    [[ -z $only || " $only " == *" $scenario "* || " $only " == *" $scenario:${4-} "* ]] || return 0
    # Each round begins with another system.
    order=("${systems[@]:(round - 1) % 3}" "${systems[@]:0:(round - 1) % 3}")
    for i in "${order[@]}"; do shoot "$round" "$i" "${@:2}"; done
}
load_before=$(cut -d' ' -f1-3 /proc/loadavg)
started=$(date -u +%FT%TZ)
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for state in first-byte mid-stream silent half-sent; do case_of "$round" cancel --state $state --count 300; done
    for state in stalled uploading; do case_of "$round" cancel --state $state --count 150; done
    for attack in none slow-head slow-body slow-reader half-close idle churn; do case_of "$round" hostile --attack $attack; done
    case_of "$round" reload
    case_of "$round" swap
    if ((round == 1)); then
        case_of "$round" memory --kind idle
        case_of "$round" memory --kind idle-stream
        case_of "$round" memory --kind stalled --few 50 --many 250
    fi
done

# --- what came out
{
    echo "started $started; load average before: $load_before, after: $(cut -d' ' -f1-3 /proc/loadavg); rounds $rounds, niceness $nice"
    echo "kernel $(uname -r), $(nproc) CPUs, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
    echo "memory $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo); open files $(ulimit -n)"
    echo "$("$nginx" -v 2>&1), $("$forebay" --version), $(rustc --version), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    sort "$dir/drivers.txt" 2>/dev/null | uniq -c || true
} | tee "$dir/machine.txt"
"$load" verdict "$rows" --json "$dir/verdict.json" >"$dir/verdict.md" || failed=1
cat "$dir/verdict.md"
if [[ $out ]]; then
    cp "$dir/machine.txt" "$dir/verdict.json" "$dir/verdict.md" "$out/"
fi
exit "$failed"
