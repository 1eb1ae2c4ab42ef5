# What side_by_side.sh and resilience.sh stand on; sourced, not run.

# Where nginx is, the tools named, two CPUs, and as many open files as the machine allows: or an end, with what is missing.
need() {
    local tool
    nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || { echo "nginx is not installed (apt-get install nginx-light)" >&2; exit 1; }
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 1; }
    done
    (($(nproc) >= 2)) || { echo "two CPUs are needed: one for the proxy, one for the load" >&2; exit 1; }
    ulimit -n "$(ulimit -Hn)"
}

# A directory in `dir`; all that `started` prints is ended, and the directory removed, however the script ends.
open_stage() {
    dir=$(mktemp -d)
    trap close_stage EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

close_stage() {
    local pid
    trap - EXIT INT TERM
    for pid in $(started); do kill "$pid" 2>/dev/null || true; done
    for pid in $(started); do wait "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}

# Waits until FILE has a line with MARK, and prints what follows it.
await() {
    local file=$1 mark=$2 line
    for _ in $(seq 100); do
        if line=$(grep -m1 -o "$mark.*" "$file" 2>/dev/null); then
            line=${line#"$mark"}
            echo "${line%% *}"
            return
        fi
        sleep 0.1
    done
    echo "did not start: $(cat "$file")" >&2
    return 1
}
