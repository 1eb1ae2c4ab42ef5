"""Scenarios in which the provider fails: what the developer sees, and that the router adds no retry and no clean end of its own."""
from faults import Answer, Cut, ErrorEvent, Reset
from judge import answered, check, scenario, transparent


def waited_s(world):
    first, second = world.asked()[:2]
    return second.started - first.ended


def recovered(world, run, requests):
    answered(run)
    check(run.answer.count("SIM-OK") == 1, "the answer is not there exactly once", run.answer)
    check(len(world.asked()) == requests, "claude sent %d requests, not %d" % (len(world.asked()), requests), world.asked())
    transparent(world)


@scenario("provider 429 with retry-after, then well")
def throttled(world):
    world.back.faults.append(Answer(429, "rate_limit_error", "slow down please", [("retry-after", "2")]))
    run = world.machine().say("say hi")
    recovered(world, run, requests=2)
    first = world.asked()[0]
    check(first.status == 429 and b"slow down please" in first.answer, "the provider's 429 did not arrive as it was", first)
    check(first.answer_header("retry-after") == "2", "retry-after changed", first.answer_header("retry-after"))
    check(2.0 <= waited_s(world) < 6.0, "claude waited %.1f s" % waited_s(world))
    check(len(world.given()) == 2, "the router retried by itself", world.given())


@scenario("provider 529, then well")
def overloaded(world):
    world.back.faults.append(Answer(529, "overloaded_error", "Overloaded"))
    run = world.machine().say("say hi")
    recovered(world, run, requests=2)
    check(world.asked()[0].status == 529, "the provider's 529 did not arrive as it was", world.asked()[0])


@scenario("provider 400 passes untouched")
def rejected(world):
    """Recovery in `claude` matches the wording, so it must be the provider's."""
    world.back.faults.append(Answer(400, "invalid_request_error", "prompt is too long: 1200000 tokens > 1000000 maximum", times=20))
    run = world.machine().say("say hi")
    check(run.failed, "claude ended as if all were well", run.brief())
    check("prompt is too long" in (run.out + run.err).lower(), "the provider's words are lost", run.brief())
    check(len(world.given()) == len(world.asked()), "the router retried a 400", world.asked(), world.given())
    transparent(world)


@scenario("reset before an answer")
def reset_early(world):
    world.back.faults.append(Reset(times=2))
    run = world.machine().say("say hi")
    answered(run)
    check(run.answer.count("SIM-OK") == 1, "the answer is not there exactly once", run.answer)
    transparent(world)


@scenario("cut before any block finished")
def cut_early(world):
    world.back.faults.append(Cut(b"text_delta", nth=1))
    run = world.machine().say("say hi")
    late_failure(world)
    recovered(world, run, requests=2)


@scenario("cut after a finished block")
def cut_late(world):
    """`claude` keeps the block and asks the model to continue; an error event here would make it do the whole turn again."""
    world.back.faults.append(Cut(b"content_block_stop", nth=1))
    run = world.machine().say("say hi")
    late_failure(world)
    check(b'"type":"error"' not in world.asked()[0].answer.replace(b" ", b""), "an error event came after a finished block")
    answered(run)
    check(len(world.asked()) == 2, "claude sent %d requests, not 2" % len(world.asked()), world.asked())
    check(b"SIM-OK" in world.asked()[1].body, "claude lost the block that was finished")


@scenario("cut inside a tool call")
def cut_tool(world):
    machine = world.machine()
    world.back.faults.append(Cut(b"input_json_delta", nth=2))
    run = machine.say("Read it [[sim:read=%s]]" % machine.file("s.txt", "tool-file-content"))
    late_failure(world)
    answered(run, "tool-file-content")


@scenario("error event in a stream")
def error_event(world):
    world.back.faults.append(ErrorEvent(b"text_delta", nth=2))
    run = world.machine().say("say hi")
    recovered(world, run, requests=2)
    check(b"Overloaded" in world.asked()[0].answer, "the provider's error event did not arrive")
    check(b'"stream":true' not in world.asked()[1].body.replace(b" ", b""), "claude no longer falls back to a whole answer here")


def late_failure(world):
    """A broken stream stays visibly broken: no message_stop, no proper end unless an error event says what happened."""
    broken = world.asked()[0]
    check(broken.status == 200, "the first answer did not begin", broken)
    check(b"message_stop" not in broken.answer, "the router made up a clean end")
    told = b'"type":"error"' in broken.answer.replace(b" ", b"")
    check(told or not broken.complete, "the broken stream ended properly without a word")
    sent = world.given()[0].answer
    check(broken.answer.startswith(sent) or sent.startswith(broken.answer), "what came before the break is not what the provider sent")


@scenario("the org's credential is refused", router_only=True)
def org_credential(world):
    """401 from the provider is the operator's trouble: the developer must not be told to log in again."""
    world.back.faults.append(Answer(401, "authentication_error", "invalid x-api-key", times=50))
    run = world.machine().say("say hi", plain=True, CLAUDE_CODE_MAX_RETRIES="1")
    text = run.out + run.err
    check(run.code != 0, "claude ended as if all were well", text[-300:])
    check(all(e.status in (502, 503) for e in world.asked()), "the developer got another status than 502 or 503", world.asked())
    check("login" not in text.lower() and "invalid x-api-key" not in text, "it looks like the developer's own key", text[-300:])
    check("forebay" in text, "the terminal does not say who reports it", text[-300:])
