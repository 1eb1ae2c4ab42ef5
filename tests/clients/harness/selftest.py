"""Proves that the scenarios can fail: behind a router that does one thing wrong, the scenario that watches for it must say so.

First all of them pass behind the same router doing nothing wrong; so they ask for nothing that only forebay does.
"""
import os
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True

from judge import SCENARIOS, World
from main import clients, run_one  # main registers the scenarios
from stack import Stack

HERE = os.path.dirname(os.path.abspath(__file__))
# What the router does wrong, who must notice, and a word of what it must say.
WEIGHTS = (
    ("hold", "streamed answer", "late"),
    ("alter", "streamed answer", "answer's body"),
    ("re-encode", "streamed tool round trip", "differ"),
    ("drop-query", "streamed answer", "differ"),
    ("lower-case", "streamed answer", "head changed"),
    ("drop-beta", "image", "head changed"),
    ("pass-key", "streamed answer", "credential"),
    ("one-at-a-time", "parallel subagents", "same time"),
    ("one-at-a-time", "/context", "parallel"),
    ("first-header-only", "leftover ANTHROPIC_API_KEY beside the token", "fail"),
    ("login-401", "claude.ai login with only the URL set", "not one request"),
    ("login-401", "claude.ai login in a terminal", "not one request"),
    ("vague", "OpenRouter key", "does not name"),
    ("no-should-retry", "wrong token", "not one request"),
    ("retry", "provider 429 with retry-after, then well", "requests"),
    ("eat-retry-after", "provider 429 with retry-after, then well", "retry-after"),
    ("clean-end", "cut before any block finished", "properly"),
    ("clean-end", "cut after a finished block", "properly"),
    ("late-error", "cut after a finished block", "an error event"),
    ("pass-401", "the org's credential is refused", "502"),
)


# Behind a router that never asks a second target these must fail; the cheap half of them is enough.
WITHOUT_FALLBACK = [s[0] for s in SCENARIOS if s[0].startswith("failover, claude")] + ["failover: both targets throttle, then recover"]


def trial(fault, names, directory, found):
    """{scenario name: what was wrong, or None} behind a router with this fault."""
    weight = "none" if fault == "no-fallback" else fault    # forebay itself, told not to
    router = [sys.executable, os.path.join(HERE, "crooked.py"), "{port}", "{upstream}", "{key}", weight]
    provider = os.environ.get("FOREBAY_CLIENTS_PROVIDER", "").split()
    stack = Stack("crooked", os.environ.get("FOREBAY_BIN"), os.path.join(directory, "stack"), provider, router)
    out = {}
    try:
        for number, (name, function, _) in enumerate(s for s in SCENARIOS if s[0] in names):
            stack.clear()
            world = World(stack, found, os.path.join(directory, "%02d" % number))
            world.without_fallback = fault == "no-fallback"
            out[name] = run_one(world, function)
    finally:
        stack.close()
    return out


def main():
    """An argument picks one fault."""
    found, bad = clients(), 0
    weights = [w for w in (*WEIGHTS, *(("no-fallback", name, "") for name in WITHOUT_FALLBACK)) if w[0] in sys.argv[1:2] or not sys.argv[1:]]
    trials = [("none", [s[0] for s in SCENARIOS])] * (not sys.argv[1:]) + [(fault, [name]) for fault, name, _ in weights]
    wanted = [None] * (not sys.argv[1:]) + [word for _, _, word in weights]
    for (fault, names), word in zip(trials, wanted):
        directory = tempfile.mkdtemp(prefix="forebay-clients-")
        try:
            seen = trial(fault, names, directory, found)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        for name, wrong in seen.items():
            right = wrong is None if word is None else wrong is not None and "Traceback" not in wrong and word in wrong
            bad += not right
            print("%s  %-18s %s: %s" % ("ok  " if right else "FAIL", fault, name, (wrong or "passes")[:300 if right else 1200]), flush=True)
    print("%d wrong" % bad)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
