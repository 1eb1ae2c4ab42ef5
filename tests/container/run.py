#!/usr/bin/env python3
"""Runs the container image's root as a container runtime does, without a daemon: under runc, as the image's user, with a
root that cannot be written, no capability, no new privileges and a network of its own; once for each seccomp profile.
Shown each time: it becomes ready, it says which driver it took and why, a stream goes through it, SIGTERM ends it.

    tests/container/run.py ROOT [--default PROFILE]

ROOT is a directory with the image's files (`buildah mount`, or `docker export | tar x`). PROFILE is a default profile in
Docker's format; without one, the one of Debian's golang-github-containers-common. As root, on Debian: runc.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent.parent / "configs" / "seccomp-io_uring.json"
DEBIANS = Path("/usr/share/containers/seccomp.json")
UID = 65532
RING = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
PATIENCE_S = 20

CONFIG = """
[listen]
address = "0.0.0.0:8080"
plaintext = true
[health]
address = "0.0.0.0:9091"
[[upstream]]
name = "simulated"
provider = "anthropic-compatible"
base_url = "http://127.0.0.1:9999"
auth = "x-api-key"
credentials = [{ env = "ANTHROPIC_API_KEY" }]
[[key]]
name = "alice"
hash = "sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
"""  # the hash of `alice`

REQUEST = (
    'POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: alice\r\nanthropic-version: 2023-06-01\r\n'
    "connection: close\r\ncontent-length: %d\r\n\r\n%s"
)
BODY = '{"model":"claude-sonnet-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hi"}]}'

ASK = """
import socket, sys
s = socket.create_connection(("127.0.0.1", 8080), 10)
s.sendall(sys.argv[1].encode())
out = b""
while piece := s.recv(65536):
    out += piece
sys.stdout.write(out.decode())
"""


def seccomp(profile: dict) -> dict:
    """Docker's format, as its daemon would hand it to the runtime for a container without capabilities."""
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if includes.get("caps") or (includes.get("arches") and ARCH not in includes["arches"]):
            continue
        if ARCH in (excludes.get("arches") or []):
            continue
        known = ("names", "action", "args", "errnoRet")
        rules.append({key: rule[key] for key in known if rule.get(key) not in (None, [])})
    native = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[ARCH]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": [native],
        "syscalls": rules,
    }


def bundle(root: Path, config: Path, profile: dict) -> dict:
    """The runtime's config.json."""
    bind = {"type": "bind", "options": ["rbind", "ro", "nosuid", "nodev"]}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": UID, "gid": UID},
            "args": ["/usr/local/bin/forebay", "serve", "--config", "/etc/forebay/forebay.toml"],
            "env": ["PATH=/usr/local/bin:/usr/bin", "ANTHROPIC_API_KEY=sk-simulated"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "forebay",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/etc/forebay/forebay.toml", "source": str(config), **bind},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
            "seccomp": seccomp(profile),
        },
    }


class Container:
    """One run of the image."""

    def __init__(self, runtime: str, root: Path, profile: dict, folder: Path):
        self.runtime, self.name, self.folder = runtime, f"forebay-test-{os.getpid()}", folder
        config = folder / "forebay.toml"
        config.write_text(CONFIG)
        config.chmod(0o644)
        (folder / "config.json").write_text(json.dumps(bundle(root, config, profile)))
        self.log = folder / "log"
        self.pid_file = folder / "pid"

    def __enter__(self):
        run = [self.runtime, "run", "--detach", "--pid-file", str(self.pid_file), "--bundle", str(self.folder), self.name]
        with self.log.open("w") as log:
            subprocess.run(run, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = int(self.pid_file.read_text())
        return self

    def __exit__(self, *_):
        subprocess.run([self.runtime, "delete", "--force", self.name], check=False)

    def exec(self, *args: str, detach: bool = False) -> subprocess.CompletedProcess:
        how = ["--detach"] if detach else []
        command = [self.runtime, "exec", *how, self.name, *args]
        if detach:  # with pipes, nobody would see them close
            quiet = subprocess.DEVNULL
            return subprocess.run(command, check=True, stdin=quiet, stdout=quiet, stderr=quiet)
        return subprocess.run(command, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL)

    def ask(self) -> str:
        request = REQUEST % (len(BODY), BODY)
        enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net", sys.executable, "-c", ASK, request]
        return subprocess.run(enter, check=True, text=True, capture_output=True).stdout


def status_of(pid: int) -> dict:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def show(what: str, runtime: str, root: Path, profile: dict, driver: str) -> None:
    """One run under one profile; raises where something is not as it must be."""
    with tempfile.TemporaryDirectory() as folder, Container(runtime, root, profile, Path(folder)) as container:
        container.exec("/usr/local/bin/forebay", "sim", "--listen", "127.0.0.1:9999", detach=True)
        until = time.monotonic() + PATIENCE_S
        while (health := container.exec("/usr/local/bin/forebay", "health")).returncode != 0:
            assert time.monotonic() < until, f"not ready: {health.stderr}\n{container.log.read_text()}"
            time.sleep(0.2)
        said = [line for line in container.log.read_text().splitlines() if "listening on" in line]
        assert said and f", {driver}" in said[0], f"{driver} was expected: {said}"
        status = status_of(container.pid)
        assert status["Uid"].split() == [str(UID)] * 4, status["Uid"]
        assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
        mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
        top = next(line.split() for line in mounts if line.split()[4] == "/")
        assert "ro" in top[5].split(","), f"the root can be written: {top}"
        answer = container.ask()
        assert answer.startswith("HTTP/1.1 200 ") and "event: message_stop" in answer, answer
        assert Path(f"/proc/{container.pid}/exe").exists(), "it has ended by itself"
        subprocess.run([runtime, "kill", container.name, "TERM"], check=True)
        until = time.monotonic() + PATIENCE_S
        while Path(f"/proc/{container.pid}/exe").exists():
            assert time.monotonic() < until, "SIGTERM does not end it"
            time.sleep(0.1)
        print(f"{what}: {said[0].split('with ')[1]}; ready, as uid {UID}, root read-only; a stream went through")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--default", type=Path, default=DEBIANS)
    parser.add_argument("--runtime", default=shutil.which("runc"))
    args = parser.parse_args()
    shipped, default = json.loads(SHIPPED.read_text()), json.loads(args.default.read_text())
    names = {name for rule in shipped["syscalls"] for name in rule["names"]}
    assert RING <= names, "the shipped profile has no ring"
    without = json.loads(SHIPPED.read_text())
    for rule in without["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in RING]
    without["syscalls"] = [rule for rule in without["syscalls"] if rule["names"]]
    root = args.root.resolve()
    show(f"default profile ({args.default})", args.runtime, root, default, "epoll")
    show("shipped profile", args.runtime, root, shipped, "io_uring")
    show("shipped profile without the ring", args.runtime, root, without, "epoll")


if __name__ == "__main__":
    main()
