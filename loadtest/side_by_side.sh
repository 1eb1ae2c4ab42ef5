#!/usr/bin/env bash
# The same load through nothing, nginx and forebay, in interleaved rounds on one machine: the proxy on CPU 0, provider
# and generator on CPU 1. Prints tables; with --out DIR keeps the rows, the tables and the machine's description there.
#
#   loadtest/side_by_side.sh [--rounds N] [--seconds S] [--only WORDS] [--out DIR] [--no-build] [--quiet PCT]
#
# --quiet PCT is for a machine that others use too: each run waits for half a second in which the machine's CPUs were
# idle but for PCT %, and is repeated when other programs took more than that while it ran; how often is told. When half
# an hour went into that, the rest runs as it is.
# Needs: nginx (Debian: nginx-light), taskset, two CPUs. Only loopback is used; everything started here is stopped here.
set -euo pipefail
cd "$(dirname "$0")/.."
source loadtest/stage.sh

rounds=5 seconds=3 out="" build=1 only="" quiet=""
while (($#)); do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --only) only=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --quiet) quiet=$2; shift 2 ;;
        --no-build) build=0; shift ;;
        -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
done
need taskset

target=${CARGO_TARGET_DIR:-target}/release
((build)) && cargo build --release --bins
forebay=$target/forebay load=$target/forebay-load

pids=() run=""
started() { echo "$run" "${pids[@]}"; }
open_stage

# --- the provider
taskset -c 1 "$load" provider >"$dir/provider.out" & provider_pid=$!
pids+=("$provider_pid")
provider=$(await "$dir/provider.out" "listening on ")

# --- nginx: one worker, a warm upstream pool, bodies in memory; buffering off for streams, as one has to for SSE
mapfile -t ports < <("$load" free-ports 3)
nginx_server() { # PORT LOG BUFFERING
    cat <<CONF
    server {
        listen 127.0.0.1:$1 reuseport backlog=4096;
        access_log $2;
        location / {
            proxy_pass http://provider;
            proxy_buffering $3;
        }
    }
CONF
}
cat >"$dir/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/nginx.err warn;
events { worker_connections 8192; }
http {
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 2m;
    keepalive_requests 100000000;
    tcp_nodelay on;
    upstream provider { server $provider; keepalive 4096; keepalive_requests 100000000; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 600s;
$(nginx_server "${ports[0]}" off on)
$(nginx_server "${ports[1]}" off off)
$(nginx_server "${ports[2]}" "$dir/nginx.log" on)
}
CONF
taskset -c 0 "$nginx" -p "$dir" -c "$dir/nginx.conf" 2>"$dir/nginx.out" & nginx_pid=$!
pids+=("$nginx_pid")

# --- forebay: one worker, a key to check, the access log on
key=load-test-key
hash=$(printf %s "$key" | sha256sum | cut -d' ' -f1)
cat >"$dir/forebay.toml" <<CONF
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[runtime]
workers = 1
[bounds]
connections_max = 16384
[log]
format = "json"
[[upstream]]
name = "provider"
provider = "anthropic"
base_url = "http://$provider"
credentials = [{ name = "org", env = "LOAD_PROVIDER_KEY" }]
[[key]]
name = "load"
hash = "sha256:$hash"
CONF
declare -A address pid_of admin
start_forebay() { # NAME FORCE_EPOLL LOG
    LOAD_PROVIDER_KEY=sk-load MONOIO_FORCE_LEGACY_DRIVER=$2 \
        taskset -c 0 "$forebay" serve --config "$dir/forebay.toml" >>"$3" 2>"$dir/forebay-$1.err" &
    pid_of[$1]=$!
    pids+=("$!")
    address[$1]=$(await "$dir/forebay-$1.err" "listening on http://")
    admin[$1]=$(await "$dir/forebay-$1.err" "admin on http://")
}
start_forebay ring 0 /dev/null
start_forebay epoll 1 /dev/null
start_forebay ringlog 0 "$dir/forebay.log"

for _ in $(seq 50); do [[ -s $dir/nginx.pid ]] && break; sleep 0.1; done
nginx_worker=$(cat /proc/"$nginx_pid"/task/"$nginx_pid"/children)
[[ $nginx_worker ]] || { cat "$dir/nginx.out" "$dir/nginx.err" >&2; exit 1; }

# --- rounds
rows=$dir/rows.jsonl
failed=0 repeated=0
patience_ends=0
[[ $quiet ]] && patience_ends=$((SECONDS + 1800))
busy_pct() { # of all CPUs together, in percent of one, for half a second
    local before after
    before=$(head -1 /proc/stat)
    sleep 0.5
    after=$(head -1 /proc/stat)
    awk -v cpus="$(nproc)" 'NR == 1 { split($0, a) } NR == 2 {
        for (i = 2; i <= 9; i++) all += $i - a[i]
        printf "%d", 100 * cpus * (all - ($5 - a[5]) - ($6 - a[6])) / (all ? all : 1)
    }' <<<"$before"$'\n'"$after"
}
await_quiet() {
    local busy
    while ((SECONDS < patience_ends)) && busy=$(busy_pct) && ((busy > quiet)); do sleep 1; done
}
shoot() { # ROUND SYSTEM SCENARIO ARGUMENTS...
    local round=$1 system=$2 scenario=$3 to who=() name
    shift 3
    case $system in
        direct) to=$provider name=direct ;;
        nginx)
            to=127.0.0.1:${ports[0]} name=nginx who=(--pid "$nginx_pid" --pid "${nginx_worker// /}")
            [[ $scenario == streams ]] && to=127.0.0.1:${ports[1]} ;;
        nginxlog) to=127.0.0.1:${ports[2]} name="nginx, log to a file" who=(--pid "$nginx_pid" --pid "${nginx_worker// /}") ;;
        ring) to=${address[ring]} name="forebay, io_uring" who=(--pid "${pid_of[ring]}") ;;
        epoll) to=${address[epoll]} name="forebay, epoll" who=(--pid "${pid_of[epoll]}") ;;
        ringlog) to=${address[ringlog]} name="forebay, io_uring, log to a file" who=(--pid "${pid_of[ringlog]}") ;;
    esac
    while :; do
        await_quiet
        taskset -c 1 "$load" "$scenario" --to "$to" --key "$key" "${who[@]}" --provider "$provider" \
            --provider-pid "$provider_pid" --seconds "$seconds" --round "$round" --system "$name" "$@" >"$dir/row" &
        # In the background, so that a signal is heeded at once.
        run=$!
        wait "$run" || {
            echo "round $round, $name, $scenario $*: see the faults in its row" >&2
            failed=1
        }
        # Judged by what others did, never by what came out.
        if ((SECONDS >= patience_ends)) || awk -v max="$quiet" -F'"foreign_pct":' '{ exit ($2 + 0 > max) }' "$dir/row"; then
            break
        fi
        repeated=$((repeated + 1))
    done
    cat "$dir/row" >>"$rows"
    # A log that only grows would end in a full disk.
    : >"$dir/forebay.log"
    : >"$dir/nginx.log"
}

wanted() { # NAME
    [[ -z $only || " $only " == *" $1 "* ]]
}
case_of() { # ROUND NAME SYSTEMS SCENARIO ARGUMENTS...
    local round=$1 name=$2 systems order i
    read -ra systems <<<"$3"
    shift 3
    wanted "$name" || return 0
    # Each round begins with another system.
    order=("${systems[@]:round % ${#systems[@]}}" "${systems[@]:0:round % ${#systems[@]}}")
    for i in "${order[@]}"; do shoot "$round" "$i" "$@"; done
}
all="direct nginx ring epoll"
load_before=$(cut -d' ' -f1-3 /proc/loadavg)
started=$(date -u +%FT%TZ)
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    case_of "$round" one "$all" passthrough --body 4000 --connections 1
    case_of "$round" small "$all nginxlog ringlog" passthrough --body 4000 --connections 32
    case_of "$round" open "$all" passthrough --body 4000 --connections 64 --rate 500
    case_of "$round" b20 "$all" passthrough --body 20000 --connections 32
    case_of "$round" b100 "$all" passthrough --body 100000 --connections 16
    case_of "$round" b700 "$all" passthrough --body 700000 --connections 4
    case_of "$round" streams "$all" streams --streams 200 --every 20
done

[[ -s $rows ]] || { echo "--only names none of: one small open b20 b100 b700 streams" >&2; exit 2; }

# --- what came out
metric() { # NAME ADDRESS
    local line
    exec 3<>"/dev/tcp/${2%:*}/${2##*:}"
    printf 'GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' >&3
    line=$(grep -a "^$1" <&3 || true)
    exec 3>&-
    echo "$line"
}
{
    echo "started $started; load average before: $load_before, after: $(cut -d' ' -f1-3 /proc/loadavg)"
    echo "rounds $rounds, $seconds s each after 1 s of warm-up; $repeated runs repeated because of other programs (--quiet ${quiet:-off})"
    echo "kernel $(uname -r), $(nproc) CPUs, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
    echo "memory $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
    echo "$("$nginx" -v 2>&1), $("$forebay" --version), $(rustc --version), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    for name in ring epoll ringlog; do
        sed -n 's/.*with \([0-9]* workers.*\)/forebay '"$name"': \1/p' "$dir/forebay-$name.err"
        metric forebay_log_ "${admin[$name]}" | sed "s/^/forebay $name: /"
    done
    wc -c <"$dir/nginx.err" | sed 's/$/ bytes in the error log of nginx/'
} | tee "$dir/machine.txt"
"$load" table "$rows" --json "$dir/tables.json" | tee "$dir/tables.md"
if [[ $out ]]; then
    mkdir -p "$out"
    cp "$rows" "$dir/machine.txt" "$dir/tables.json" "$dir/tables.md" "$out/"
fi
exit "$failed"
