"""Scenarios with two targets: the first one fails, and nobody in front of the router may notice.

Each has a router of its own, fresh: one that has seen a provider fail goes around it, which is what the next scenario would see.
"""
import contextlib
import json
import os
import socket
import threading
import time

from answers import call
from faults import Answer, Cut, ErrorEvent, Hang, Reset
from judge import World, answered, check, scenario
from sdks import node, python, run as run_sdk
from stack import Spare, Stack

OFTEN = 1_000
# What the first target does before it has said anything, and whether it is seen to be asked.
FAILURES = {
    "refuses connections": None,
    "hangs": lambda: Hang(times=OFTEN),
    "resets": lambda: Reset(times=OFTEN),
    "429": lambda: Answer(429, "rate_limit_error", "slow down please", [("retry-after", "30")], times=OFTEN),
    "500": lambda: Answer(500, "api_error", "Internal server error", times=OFTEN),
    "529": lambda: Answer(529, "overloaded_error", "Overloaded", times=OFTEN),
    "401": lambda: Answer(401, "authentication_error", "invalid x-api-key", times=OFTEN),
    "error event before content": lambda: ErrorEvent(b"message_start", times=OFTEN),
    "cut before content": lambda: Cut(b"message_start", times=OFTEN),
}


@contextlib.contextmanager
def pair(world, absent=False):
    """The same world, in front of a router with two targets."""
    directory = os.path.join(world.directory, "pair")
    spare = Spare(absent=absent, fallback=not getattr(world, "without_fallback", False))
    stack = Stack(world.stack.driver, world.stack.forebay, directory, spare=spare)
    try:
        yield World(stack, world.clients, os.path.join(directory, "machines"))
        check(not stack.dead(), "no longer running", stack.dead())
    finally:
        stack.close()


def taken(world):
    """The model requests that the second target got."""
    return [e for e in world.stack.spare.seen() if e.method == "POST" and e.path == "/v1/messages"]


def unnoticed(world, failure):
    """Every answer that left the router is whole, is the second target's, and came for the client's own bytes."""
    check(world.asked(), "nothing was asked")
    for e in world.asked():
        check(e.status == 200 and e.complete, "an answer was not whole", e)
        from_spare = e.answer_header("x-forebay-upstream") == "spare"
        # A failure that is played on a stream's events leaves an answer that is one document alone.
        plays = failure not in ("error event before content", "cut before content") or b"event: " in e.answer
        check(from_spare or not plays, "the first target answered all the same", e.answer_head)
    bodies = [e.body_sha256 for e in world.asked()]
    check(all(e.body_sha256 in bodies for e in taken(world)), "the second target got other bytes than the client sent")
    check(taken(world), "the second target was not asked")
    late = [e for e in taken(world) if e.complete and not any(a.answer == e.answer for a in world.asked())]
    check(not late, "an answer changed on its way", late)


def added(world, two):
    """What the first target's failure cost: how long each attempt there took, by the router's own account."""
    time.sleep(0.1)                         # the account is written behind the answers
    took = [line["tried"][0]["took_us"] / 1000 for line in two.stack.access_log() if len(line.get("tried", [])) > 1]
    if took:
        world.note = "  first target: %d times, %s ms" % (len(took), ", ".join("%.1f" % t for t in took))


def recovers(name, make):
    """The scenarios of one failure: Claude Code and both SDKs."""
    @scenario("failover, claude: the first target " + name, router_only=True)
    def claude(world):
        with pair(world, absent=make is None) as two:
            if make:
                two.back.faults.append(make())
            machine = two.machine()
            run = machine.say("Read it [[sim:read=%s]]" % machine.file("s.txt", "the-file-content"))
            answered(run, "the-file-content")
            check(run.retries == 0, "claude retried", run.retries)
            check(len(two.asked()) == 2, "claude sent %d requests, not 2" % len(two.asked()), two.asked())
            unnoticed(two, name)
            added(world, two)

    @scenario("failover, SDKs: the first target " + name, router_only=True)
    def sdks(world):
        with pair(world, absent=make is None) as two:
            if make:
                two.back.faults.append(make())
            for command in (python, node):
                run_sdk(two, command(two), "failover")
            check(len(two.asked()) == 4, "not four requests", two.asked())
            unnoticed(two, name)
            added(world, two)


for failure, maker in FAILURES.items():
    recovers(failure, maker)


@scenario("failover: a tool runs once, though each stream is cut after its call", router_only=True)
def tools_once(world):
    """After a finished block nobody else is asked, and claude goes on from what it has."""
    with pair(world) as two:
        machine = two.machine()
        two.back.faults.append(Cut(b"content_block_stop", nth=1, times=3))
        steps = " [[sim:then]] ".join(call("Bash", command="echo %s >> done.txt" % step, description="a step") for step in ("one", "two", "three"))
        run = machine.say(steps)
        with open(os.path.join(machine.work, "done.txt")) as file:
            done = file.read().split()
        check(done == ["one", "two", "three"], "the tools did not run once each, in order", done, run.brief())
        cut = [e for e in two.asked() if not e.complete]
        check(len(cut) == 3, "not three streams were cut", two.asked())
        for e in cut:
            check(not any(t.body == e.body for t in taken(two)), "somebody else was asked after a call had gone out", e)


@scenario("failover: both targets throttle, then recover", router_only=True)
def both_throttle(world):
    with pair(world) as two:
        two.back.faults.append(Answer(429, "rate_limit_error", "slow down", [("retry-after", "2")]))
        two.stack.spare.faults.append(Answer(429, "rate_limit_error", "slow down", [("retry-after", "3")]))
        run = two.machine().say("say hi")
        answered(run)
        first, second = two.asked()
        check(first.status == 429 and first.answer_header("x-forebay-reason") == "upstreams_busy", "not the router's own 429", first.answer_head)
        check(first.answer_header("retry-after") == "2", "not the least of the two waits", first.answer_header("retry-after"))
        waited = second.started - first.ended
        check(2.0 <= waited < 6.0 and second.status == 200, "claude waited %.1f s" % waited, second)


@scenario("failover: both targets refuse the organisation's credential", router_only=True)
def both_refuse(world):
    with pair(world) as two:
        for tap in (two.back, two.stack.spare):
            tap.faults.append(Answer(401, "authentication_error", "invalid x-api-key", times=OFTEN))
        run = two.machine().say("say hi", plain=True, CLAUDE_CODE_MAX_RETRIES="1")
        text = run.out + run.err
        check(run.code != 0 and "operator" in text and "login" not in text.lower(), "the operator is not named", text[-400:])
        check(len(two.asked()) == 1, "claude asked again", two.asked())


@scenario("own pings into a silent stream", router_only=True)
def own_pings(world):
    with pair(world) as two:
        run = two.machine().say("say hi [[sim:events=6,stall=3,stall_ms=20000,ping=0]]")
        answered(run, "")
        check(run.retries == 0 and len(two.asked()) == 1, "claude asked again", two.asked())
        ours = two.asked()[0].answer.count(b"event: ping") - two.given()[0].answer.count(b"event: ping")
        check(ours == 1, "not one ping in 20 s of silence", ours)


@scenario("failover: a hang under load", router_only=True)
def hang_under_load(world):
    """100 requests a second for ten seconds while the first target says nothing: each is answered, and after the first few in no time."""
    with pair(world) as two:
        two.back.faults.append(Hang(times=OFTEN))
        took, wrong = [], []
        body = json.dumps({"model": "claude-sim", "max_tokens": 20, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (two.stack.key, len(body))

        def one():
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", two.front.port), 10) as sock:
                    sock.settimeout(20)
                    sock.sendall(head.encode() + body)
                    got = b""
                    while piece := sock.recv(65536):
                        got += piece
                good = got.startswith(b"HTTP/1.1 200") and b"message_stop" in got
            except OSError as error:
                good, got = False, repr(error).encode()
            took.append(time.monotonic() - began)
            if not good:
                wrong.append(got[:300])

        threads, start = [], time.monotonic()
        for number in range(1_000):
            time.sleep(max(0.0, start + number / 100 - time.monotonic()))
            threads.append(threading.Thread(target=one, daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(30)
        check(not wrong and len(took) == 1_000, "%d of %d failed" % (len(wrong), len(took)), wrong[:2])
        slow = sum(t > 1.5 for t in took)
        check(0 < slow <= 300, "%d of 1,000 waited for the hang" % slow)
