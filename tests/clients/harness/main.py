"""Runs the scenarios against one stack per driver and prints a line for each. Started by run.sh; see there for the options."""
import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from types import SimpleNamespace

sys.dont_write_bytecode = True

import answers, failures, failover, laptops, sdks, audit  # noqa: E401,F401 - importing registers the scenarios, in this order
from judge import SCENARIOS, World, Wrong
from stack import Stack, StackError

WRONG_CHARS_MAX = 1500                      # what was seen may hold a whole answer


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--driver", choices=("ring", "epoll", "both", "none"), default="both",
                        help="none: no router, to see what the clients do by themselves")
    parser.add_argument("--only", metavar="NAME", help="only scenarios whose name contains this")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--keep", action="store_true", help="keep the work directory, with the logs")
    return parser.parse_args()


def clients():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = os.environ.get("FOREBAY_CLIENTS") or os.path.join(cache, "forebay-clients")
    arch = {"x86_64": "x64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
    found = SimpleNamespace(
        claude=os.path.join(root, "claude-code/node_modules/@anthropic-ai/claude-code-linux-%s/claude" % arch),
        sdk_js=os.path.join(root, "sdkjs"), python=os.path.join(root, "venv/bin/python"), node=shutil.which("node") or "node")
    for path in (found.claude, found.sdk_js, found.python):
        if not os.path.exists(path):
            raise StackError("%s is not there: run tests/clients/install.sh first" % path)
    return found


def run_one(world, function):
    """None, or what was wrong."""
    try:
        function(world)
    except Wrong as wrong:
        return str(wrong)
    except Exception:                       # a scenario that breaks is a scenario that fails
        return traceback.format_exc(limit=-3)
    dead = world.stack.dead()
    return "%s is no longer running" % " and ".join(dead) if dead else None


def run_driver(driver, chosen, directory, found):
    provider = os.environ.get("FOREBAY_CLIENTS_PROVIDER", "").split()
    stack = Stack(driver, os.environ.get("FOREBAY_BIN"), os.path.join(directory, "stack-" + driver), provider)
    passed = failed = 0
    try:
        for number, (name, function, router_only) in enumerate(chosen):
            if router_only and not stack.routed:
                print("skip  %-5s  %s (needs the router)" % (driver, name), flush=True)
                continue
            stack.clear()
            began = time.monotonic()
            world = World(stack, found, os.path.join(directory, "%s-%02d" % (driver, number)))
            wrong = run_one(world, function)
            print("%s  %-5s  %s  (%.1f s)%s" % ("FAIL" if wrong else "ok  ", driver, name, time.monotonic() - began, world.note), flush=True)
            if wrong:
                print("      " + wrong[:WRONG_CHARS_MAX].replace("\n", "\n      "), flush=True)
            passed, failed = passed + (not wrong), failed + bool(wrong)
            if stack.dead():
                print("      " + stack.router_says()[-2000:].replace("\n", "\n      "))
                break
    finally:
        stack.close()
    return passed, failed


def main():
    options = arguments()
    chosen = [s for s in SCENARIOS if not options.only or options.only.lower() in s[0].lower()]
    if options.list:
        print("\n".join(s[0] for s in chosen))
        return 0
    if not chosen:
        print("no scenario is called like %r" % options.only, file=sys.stderr)
        return 2
    directory = tempfile.mkdtemp(prefix="forebay-clients-")
    passed = failed = 0
    try:
        for driver in ("ring", "epoll") if options.driver == "both" else (options.driver,):
            good, bad = run_driver(driver, chosen, directory, clients())
            passed, failed = passed + good, failed + bad
    except (StackError, OSError) as error:
        print("run.sh: %s" % error, file=sys.stderr)
        return 3
    finally:
        if options.keep:
            print("kept: %s" % directory)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
