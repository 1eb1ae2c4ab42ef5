"""Scenarios of the Anthropic SDKs. What they check is in sdk_python.py and sdk_js.mjs; here it is judged by the wire too."""
import os
import subprocess

from faults import Answer
from judge import check, scenario, transparent

HERE = os.path.dirname(os.path.abspath(__file__))


def run(world, command, what):
    environment = {"PATH": "/usr/bin:/bin", "HOME": world.directory, "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1", "BASE_URL": world.stack.url,
                   "KEY": world.stack.key, "PART": what, "SDK_JS": world.clients.sdk_js, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment, cwd=world.directory)
    check(done.returncode == 0, "the SDK's own checks failed", (done.stdout + done.stderr)[-600:])
    return done.stdout


def work(world, command):
    run(world, command, "work")
    check(all(e.status == 200 and e.complete for e in world.front.seen()), "an answer broke off", world.front.seen())
    check(world.front.seen("POST", "/v1/messages/count_tokens"), "count_tokens was not asked")
    check(world.front.seen("GET", "/v1/models"), "the model list was not asked")
    check(len(world.given()) == len(world.asked()), "requests were added or lost", world.asked(), world.given())
    transparent(world)


def refusal(world, command):
    run(world, command, "refusal")
    check(len(world.asked()) == 1 and world.asked()[0].status == 401, "not one request with a 401", world.asked())
    check(not world.given(), "a refused request reached the provider")


def retry(world, command):
    world.back.faults.append(Answer(429, "rate_limit_error", "slow down please", [("retry-after", "1")]))
    run(world, command, "retry")
    check([e.status for e in world.asked()] == [429, 200], "not a 429 and then an answer", world.asked())
    transparent(world)


def python(world):
    return [world.clients.python, os.path.join(HERE, "sdk_python.py")]


def node(world):
    return [world.clients.node, os.path.join(HERE, "sdk_js.mjs")]


for language, command_of in (("Python", python), ("JavaScript", node)):
    for part, judge in (("work", work), ("refusal", refusal), ("retry", retry)):
        scenario("%s SDK: %s" % (language, part))(lambda world, command_of=command_of, judge=judge: judge(world, command_of(world)))
