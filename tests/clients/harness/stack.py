"""What a run stands on: provider, router, and a tap on each side of the router. All on loopback, all ended by `Stack.close`.

    client -> front tap -> forebay -> back tap -> provider
                               \---> spare tap ----/        (only with `Spare`: the target for when the first one fails)

With the driver "none" there is no router: the front tap talks to the back tap, and refuses unknown keys itself in the way a router
must. That mode shows what the clients do by themselves, and that a scenario's failure is the router's.
"""
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.request

from faults import Answer
from tap import Tap

START_S = 20.0


class StackError(Exception):
    """Something did not start; the scenarios were not run."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_listening(port, process, what, log):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise StackError("%s ended with code %s before it listened:\n%s" % (what, process.returncode, tail(log)))
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise StackError("%s does not listen on 127.0.0.1:%d after %.0f s:\n%s" % (what, port, START_S, tail(log)))


def tail(path, size=2000):
    try:
        with open(path, errors="replace") as file:
            return file.read()[-size:]
    except OSError:
        return ""


class UnknownKey(Answer):
    """The stand-in for the router's refusal, for the driver "none"."""

    def __init__(self, key):
        super().__init__(401, "authentication_error", "forebay: this key is not known here (stand-in). Ask for a key.",
                         [("x-should-retry", "false")], times=10 ** 9, match=lambda e: e.method != "HEAD" and key not in sent_keys(e))
        self.name = None


def sent_keys(exchange):
    """The credentials that a request carries, without the Bearer word."""
    out = []
    for name, value in exchange.head:
        if name.lower() == "x-api-key":
            out.append(value)
        elif name.lower() == "authorization":
            out.append(value.partition(" ")[2] if value.lower().startswith("bearer ") else value)
    return [v for v in out if v]


class Spare:
    """A second target. `absent`: nobody listens where the first one should be. `fallback` off: the second one is never asked."""

    def __init__(self, absent=False, fallback=True):
        self.absent, self.fallback = absent, fallback


class Stack:
    def __init__(self, driver, forebay, directory, provider_command=None, router_command=None, spare=None):
        self.with_spare = spare
        self.driver, self.forebay, self.directory = driver, forebay, directory
        self.router_command = router_command    # instead of forebay, for selftest.py; may hold {port} {upstream} {key}
        self.processes, self.files = [], []
        self.credential = "sk-ant-org-" + secrets.token_hex(16)
        self.key = "fby_" + secrets.token_hex(32)
        os.makedirs(directory, exist_ok=True)
        try:
            self._start(provider_command)
        except BaseException:
            self.close()
            raise

    @property
    def routed(self):
        return self.driver != "none"

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.front.port

    def path(self, name):
        return os.path.join(self.directory, name)

    def _start(self, provider_command):
        port = free_port()
        command = provider_command or [self.forebay, "sim", "--listen", "127.0.0.1:{port}"]
        self._spawn("provider", [part.replace("{port}", str(port)) for part in command], port, {})
        self.back = Tap(("127.0.0.1", port))
        self.spare = Tap(("127.0.0.1", port)) if self.with_spare else None
        target = ("127.0.0.1", self.back.port)
        if self.routed:
            target = ("127.0.0.1", self._router())
        self.front = Tap(target)
        self.clear()

    def _router(self):
        port, self.admin_port = free_port(), free_port()
        if self.router_command:
            fill = {"{port}": str(port), "{upstream}": str(self.back.port), "{key}": self.key}
            self._spawn("router", [fill.get(w, w) for w in self.router_command], port, {"FOREBAY_CLIENTS_CREDENTIAL": self.credential})
            return port
        key_block = self._make_key()
        with open(self.path("forebay.toml"), "w") as file:
            file.write('[listen]\naddress = "127.0.0.1:%d"\n\n[admin]\naddress = "127.0.0.1:%d"\n\n' % (port, self.admin_port))
            file.write('[org]\ncontact = "%s"\n\n' % CONTACT)
            file.write(self._upstream("anthropic", self._nobodys_port() if self.with_spare and self.with_spare.absent else self.back.port))
            if self.spare:
                file.write('first_byte = "2s"\n' + self._upstream("spare", self.spare.port))
                file.write('[[model]]\nname = "*"\nfallback = %s\n' % str(self.with_spare.fallback).lower())
                file.write('targets = [{ upstream = "anthropic" }, { upstream = "spare", tier = 2 }]\n')
            file.write('\n%s\n' % key_block)
        environment = {"FOREBAY_CLIENTS_CREDENTIAL": self.credential}
        if self.driver == "epoll":
            environment["MONOIO_FORCE_LEGACY_DRIVER"] = "1"
        self._spawn("router", [self.forebay, "serve", "--config", self.path("forebay.toml")], port, environment)
        self._wait_until_ready()
        kinds = list(self.metric("forebay_driver"))
        wanted = "epoll" if self.driver == "epoll" else "io_uring"
        if not kinds or not all(wanted in kind for kind in kinds):
            raise StackError("asked for %s, the router runs on %s:\n%s" % (wanted, kinds, tail(self.path("router.log"))))
        return port

    def _nobodys_port(self):
        """A port that refuses connections: taken, so that nothing else gets it, and not listened on."""
        self.nobody = socket.socket()
        self.nobody.bind(("127.0.0.1", 0))
        return self.nobody.getsockname()[1]

    @staticmethod
    def _upstream(name, port):
        credentials = '[{ name = "org", env = "FOREBAY_CLIENTS_CREDENTIAL" }]'
        return '[[upstream]]\nname = "%s"\nprovider = "anthropic"\nbase_url = "http://127.0.0.1:%d"\ncredentials = %s\n' % (name, port, credentials)

    def _wait_until_ready(self):
        """A bound socket is not yet a worker that serves: on a busy machine there is time between the two."""
        until = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:%d/readyz" % self.admin_port, timeout=5).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise StackError("the router is not ready:\n" + tail(self.path("router.log")))
                time.sleep(0.05)

    def _make_key(self):
        """`forebay keys new` prints the key once and the block for the file; a router without that command gets a hash of ours."""
        made = subprocess.run([self.forebay, "keys", "new", "--name", "dev"], capture_output=True, text=True, timeout=20)
        words = made.stdout.split() + made.stderr.split()
        keys = [w.strip("\"'`") for w in words if w.strip("\"'`").startswith("fby_")]
        if made.returncode == 0 and keys:
            self.key = keys[0]
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        return '[[key]]\nname = "dev"\nhash = "sha256:%s"\n' % digest

    def _spawn(self, name, command, port, extra):
        log = self.path(name + ".log")
        out, err = open(self.path(name + ".out"), "wb"), open(log, "wb")
        self.files += [out, err]
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": self.directory, **extra}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True)
        self.processes.append((name, process))
        wait_listening(port, process, name, log)

    def clear(self):
        """A clean page for the next scenario: no records, no faults."""
        self.front.clear()
        self.back.clear()
        if self.spare:
            self.spare.clear()
        if not self.routed:
            self.front.faults.append(UnknownKey(self.key))

    def access_log(self):
        """The router's own account: one JSON object an exchange, on its standard output."""
        lines = []
        with open(self.path("router.out"), errors="replace") as file:
            for line in file:
                if line.startswith("{"):
                    lines.append(json.loads(line))
        return lines

    def metric(self, name):
        """{labels: value} of one metric of the router, from its admin address."""
        with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % self.admin_port, timeout=5) as page:
            lines = page.read().decode().splitlines()
        samples = [re.fullmatch(r"%s(\{.*\})? (\S+)( .*)?" % re.escape(name), line) for line in lines]
        return {m.group(1) or "": float(m.group(2)) for m in samples if m}

    def router_says(self):
        return tail(self.path("router.log"), 100_000)

    def router_writes(self):
        """All that the router has written, on both outputs."""
        return self.router_says() + tail(self.path("router.out"), 10_000_000)

    def dead(self):
        return [name for name, process in self.processes if process.poll() is not None]

    def close(self):
        for tap in ("front", "back", "spare", "nobody"):
            if getattr(self, tap, None):
                getattr(self, tap).close()
        for _, process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for _, process in reversed(self.processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for file in self.files:
            file.close()


CONTACT = "#ai-platform on Slack"
