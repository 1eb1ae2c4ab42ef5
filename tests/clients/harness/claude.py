"""Drives a real `claude`: headless, or typed at in a terminal. Knows what its stream-json means, and judges nothing."""
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import fcntl

NO_SIDE_TRAFFIC = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


class Message:
    """One streamed model turn. `finished` = the wire brought a stop reason.

    A message_stop proves nothing: for a stream that died `claude` makes up content_block_stop and message_stop by itself.
    """

    def __init__(self, parent):
        self.parent, self.text, self.deltas, self.thinking, self.finished = parent, "", 0, "", False


class Run:
    """What one headless `claude` said and did."""

    def __init__(self, code, out, err, took_s):
        self.code, self.out, self.err, self.took_s = code, out, err, took_s
        self.events = []
        for line in out.splitlines():
            if line.startswith("{"):
                self.events.append(json.loads(line))

    def results(self):
        return [e for e in self.events if e.get("type") == "result"]

    @property
    def answer(self):
        return "\n".join(str(e.get("result", "")) for e in self.results())

    @property
    def failed(self):
        return self.code != 0 or not self.results() or any(e.get("is_error") for e in self.results())

    @property
    def retries(self):
        return sum(e.get("subtype") == "api_retry" for e in self.events)

    def messages(self):
        out, current = [], {}
        for e in self.events:
            if e.get("type") != "stream_event":
                continue
            parent, event = e.get("parent_tool_use_id"), e["event"]
            kind = event.get("type")
            if kind == "message_start":
                current[parent] = Message(parent)
                out.append(current[parent])
            elif parent in current and kind == "content_block_delta":
                delta = event["delta"]
                current[parent].text += delta.get("text", "")
                current[parent].thinking += delta.get("thinking", "")
                current[parent].deltas += delta.get("type") == "text_delta"
            elif parent in current and kind == "message_delta" and event["delta"].get("stop_reason"):
                current[parent].finished = True
        return out

    def tool_results(self):
        out = []
        for e in self.events:
            content = e.get("message", {}).get("content") if e.get("type") == "user" else None
            if isinstance(content, list):
                out += [b for b in content if b.get("type") == "tool_result"]
        return out

    def brief(self):
        return "exit %s, answer %r, stderr %r" % (self.code, (self.answer or self.out)[-400:], self.err[-300:])


class Claude:
    """One developer's machine: a private home, a work directory, and an environment with nothing else in it."""

    def __init__(self, binary, url, directory, credentials):
        self.binary, self.directory = binary, directory
        self.home, self.work = os.path.join(directory, "home"), os.path.join(directory, "work")
        os.makedirs(self.home)
        os.makedirs(self.work)
        self.environment = {
            "PATH": "/usr/bin:/bin", "HOME": self.home, "LANG": "C.UTF-8", "TERM": "dumb", "IS_SANDBOX": "1",
            "NO_PROXY": "127.0.0.1,localhost", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1", "ANTHROPIC_BASE_URL": url, **credentials}

    def file(self, name, content):
        path = os.path.join(self.work, name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def say(self, prompt, *options, plain=False, timeout_s=60, **more):
        """`claude -p PROMPT`. `plain` = the text a person would see; else stream-json. `more` adds to the environment."""
        command = [self.binary, "-p", prompt, "--allowedTools", "Read", "Bash", "Agent", *options]
        if not plain:
            command += ["--output-format", "stream-json", "--include-partial-messages", "--verbose"]
        environment = {**self.environment, **NO_SIDE_TRAFFIC, **more}
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   cwd=self.work, env={k: v for k, v in environment.items() if v is not None}, start_new_session=True)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += "\n(ended by the time limit of %d s)" % timeout_s
        return Run(process.returncode, out, err, time.monotonic() - began)

    def terminal(self, **more):
        return Terminal(self, {**self.environment, **NO_SIDE_TRAFFIC, "TERM": "xterm-256color", **more})

    def past_first_start(self, key=""):
        """Answers the questions that `claude` asks once: theme, folder trust, and whether to use the key it found."""
        with open(os.path.join(self.home, ".claude.json"), "w") as file:
            json.dump({"hasCompletedOnboarding": True, "theme": "dark", "lastOnboardingVersion": "2.1.330",
                       "customApiKeyResponses": {"approved": [key[-20:]], "rejected": []},
                       "projects": {self.work: {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}}}, file)


class Terminal:
    """An interactive `claude` in a pseudo-terminal. `screen` is what was printed, without the escape sequences."""

    def __init__(self, machine, environment):
        self.process_id, self.master = pty.fork()
        if self.process_id == 0:
            os.chdir(machine.work)
            os.execve(machine.binary, [machine.binary], {k: v for k, v in environment.items() if v is not None})
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self.raw = b""

    @property
    def screen(self):
        text = self.raw.decode("utf-8", "replace")
        text = re.sub(r"\x1b\[(\d*)C", lambda m: " " * int(m.group(1) or 1), text)
        return re.sub(r"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-Z]|[78=>])", "", text)

    def pump(self, seconds, until=lambda: False):
        """Read for so long, or until the condition holds; true if it does."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until():
                return True
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    got = os.read(self.master, 65536)
                except OSError:
                    break
                if not got:
                    break
                self.raw += got
        return until()

    def wait(self, text, seconds=20):
        squeezed = text.replace(" ", "")
        return self.pump(seconds, lambda: squeezed in re.sub(r"\s", "", self.screen))

    def type(self, text):
        """Types, lets the input box settle, and presses return: pasted text with its own return would not be sent."""
        os.write(self.master, text.encode())
        self.pump(0.6)
        os.write(self.master, b"\r")

    def close(self):
        try:
            os.killpg(self.process_id, signal.SIGKILL)
        except OSError:
            pass
        os.close(self.master)
        os.waitpid(self.process_id, 0)
