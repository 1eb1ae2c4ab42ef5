"""Scenarios of plain work: answers, tools, images, subagents, and the commands that talk to the API in their own way."""
import json
import secrets
import struct
import zlib

from faults import Together, messages
from judge import answered, check, clean, prompt_delivery, scenario, transparent


def call(tool, **arguments):
    return "[[sim:call=%s:%s]]" % (tool, json.dumps(arguments))


@scenario("streamed answer")
def streamed_answer(world):
    run = world.machine().say("say hi")
    answered(run)
    clean(world, run, turns=1)
    last = run.messages()[-1]
    check(last.deltas >= 2, "the answer did not come in pieces", last.deltas)
    check(last.text == run.answer, "the streamed text is not the final text", last.text, run.answer)
    prompt_delivery(world)


@scenario("streamed tool round trip")
def tool_round_trip(world):
    machine, secret = world.machine(), "secret-" + secrets.token_hex(12)
    path = machine.file("s.txt", secret + "\n")
    run = machine.say("Read it [[sim:read=%s]]" % path)
    answered(run, secret)
    clean(world, run, turns=2)
    check(run.results()[-1]["num_turns"] == 2, "not two turns", run.results()[-1]["num_turns"])
    check(secret.encode() in world.given()[1].body, "the provider did not get the tool's result")
    check(secret.encode() not in world.given()[0].body, "the secret was known before the tool ran")


@scenario("x-api-key")
def api_key(world):
    run = world.machine({"ANTHROPIC_API_KEY": world.stack.key}).say("say hi")
    answered(run)
    clean(world, run, turns=1)
    check(world.asked()[0].header("x-api-key") == world.stack.key, "claude did not use x-api-key")
    check(world.asked()[0].header("authorization") is None, "claude sent an Authorization too")


@scenario("parallel tool calls")
def parallel_tools(world):
    machine, names = world.machine(), ["one-" + secrets.token_hex(8), "two-" + secrets.token_hex(8), "three-" + secrets.token_hex(8)]
    paths = [machine.file("%d.txt" % i, name) for i, name in enumerate(names)]
    run = machine.say("Read them " + " ".join(call("Read", file_path=p) for p in paths))
    answered(run)
    clean(world, run, turns=2)
    check(len(run.tool_results()) == 3, "not three tool results", len(run.tool_results()))
    for name in names:
        check(name.encode() in world.given()[1].body, "a tool result did not reach the provider", name)


@scenario("thinking blocks")
def thinking(world):
    machine, secret = world.machine(), "secret-" + secrets.token_hex(12)
    run = machine.say("Think, then read [[sim:thinking]] [[sim:read=%s]]" % machine.file("s.txt", secret))
    answered(run, secret)
    clean(world, run, turns=2)
    first = json.loads(world.given()[1].body)["messages"]
    blocks = [b for m in first if m["role"] == "assistant" for b in m["content"] if b["type"] == "thinking"]
    check(blocks and blocks[0].get("signature"), "the signed thinking did not come back to the provider", blocks)
    check(blocks[0]["signature"].encode() in world.given()[0].answer, "the signature is not the one that was sent")


@scenario("image")
def image(world):
    machine = world.machine()
    run = machine.say("Look [[sim:read=%s]] [[sim:image]]" % machine.file("p.png", png(48, 48)))
    answered(run)
    clean(world, run, turns=2)
    blocks = list(find(json.loads(world.given()[1].body)["messages"], "image"))
    check(blocks, "the provider did not get an image block")
    source = blocks[-1]["source"]
    check(source["type"] == "base64" and source["media_type"].startswith("image/") and len(source["data"]) > 100, "not an image", source["type"])
    check(source["media_type"] in run.answer, "the provider did not recognise the image", run.answer)


def png(width, height):
    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + secrets.token_bytes(3 * width) for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def find(value, kind):
    if isinstance(value, dict):
        if value.get("type") == kind and "source" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from find(inner, kind)


@scenario("parallel subagents")
def subagents(world):
    def subagent(e):
        return messages(e) and e.header("x-claude-code-agent-id") is not None
    together = Together(3, match=subagent)
    world.back.faults.append(together)
    calls = [call("Agent", description="part %d" % i, prompt="say part %d" % i, subagent_type="general-purpose") for i in range(3)]
    run = world.machine().say("Do three things " + " ".join(calls))
    answered(run)
    check(together.met == 3, "the subagents did not run at the same time: they waited for each other at the provider", together.met)
    check(run.retries == 0, "claude retried", run.retries)
    theirs = [e for e in world.given() if subagent(e)]
    check(len({e.header("x-claude-code-agent-id") for e in theirs}) == 3, "not three agent ids", len(theirs))
    check(len({e.header("x-claude-code-session-id") for e in world.given()}) == 1, "the subagents left the session")
    check(len(world.given()) == len(world.asked()), "requests were added or lost", world.asked(), world.given())
    check(len({e.connection for e in theirs}) == 3, "the subagents shared a connection while all of them waited")
    transparent(world)


@scenario("/context")
def context(world):
    machine = world.machine()
    answered(machine.say("say hi"))
    world.stack.clear()
    together = Together(6, match=lambda e: e.path == "/v1/messages/count_tokens")
    world.back.faults.append(together)
    run = machine.say("/context", "--continue")
    check(not run.failed and "Context Usage" in run.answer, "no context report", run.brief())
    counted = world.back.seen("POST", "/v1/messages/count_tokens")
    check(len(counted) >= 20, "claude did not count through the router", len(counted))
    check(all(e.status == 200 for e in world.front.seen()), "a count was refused", [e.status for e in world.front.seen()])
    check(not world.asked(), "counting turned into billed model requests", world.asked())
    check(len(world.front.seen("POST")) == len(counted), "counts were added or lost")
    check(together.met == 6, "the counts did not run in parallel: they waited for each other at the provider", together.met)
    transparent(world)


@scenario("/compact")
def compact(world):
    machine = world.machine()
    answered(machine.say("say hi"))
    world.stack.clear()
    run = machine.say("/compact", "--continue", CLAUDE_CODE_GATEWAY_HINT_HEADERS="1")
    check(not run.failed, "/compact failed", run.brief())
    check(any(e.get("subtype") == "compact_boundary" for e in run.events), "the conversation was not compacted", run.brief())
    classes = [e.header("x-claude-code-request-class") for e in world.given()]
    check(classes == ["compaction"], "the provider did not get exactly one compaction request", classes)
    transparent(world)
    world.stack.clear()
    after = machine.say("say hi again", "--continue")
    answered(after)
    clean(world, after, turns=1)
    check(b"This session is being continued" in world.given()[0].body, "the next turn does not start from the summary")


@scenario("model discovery and hello")
def discovery(world):
    machine = world.machine()
    machine_says = machine.say("say hi", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=None, CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1")
    answered(machine_says)
    hello = world.front.seen("HEAD", "/api/hello")
    check(hello and all(e.status == 200 or not world.stack.routed for e in hello), "no 200 for HEAD /api/hello", hello)
    lists = world.front.seen("GET", "/v1/models")
    check(lists and lists[0].status == 200, "no model list", lists)
    ids = [m["id"] for m in json.loads(lists[0].answer)["data"]]
    check(ids and all("claude" in i or "anthropic" in i for i in ids), "claude would ignore these model ids", ids)
    check(lists[0].ended - lists[0].started < 3, "the model list took longer than the 3 s that claude waits")
    with open(machine.home + "/.claude/cache/gateway-models.json") as file:
        cached = file.read()
    check(all('"%s"' % i in cached for i in ids), "claude did not take up the model list", cached[:300])


@scenario("interactive terminal")
def interactive(world):
    machine = world.machine()
    machine.past_first_start()
    terminal = machine.terminal(CLAUDE_CODE_GATEWAY_HINT_HEADERS="1")
    try:
        check(terminal.wait("for agents"), "claude did not start in the terminal", terminal.screen[-300:])
        terminal.type("say hi")
        check(terminal.wait("SIM-OK"), "no answer on the terminal", terminal.screen[-300:], world.front.seen())
        terminal.pump(0.5)
        terminal.type("/context")
        check(terminal.wait("Context usage"), "no context report on the terminal", terminal.screen[-300:])
        check(len(world.back.seen("POST", "/v1/messages/count_tokens")) >= 20, "/context did not count through the router")
        terminal.pump(0.5)
        terminal.type("/compact")
        check(terminal.wait("Compacted"), "/compact did not finish on the terminal", terminal.screen[-300:])
        terminal.pump(0.5)
        terminal.type("/context")
        terminal.pump(1)
    finally:
        terminal.close()
    classes = [e.header("x-claude-code-request-class") for e in world.given()]
    check(classes.count("compaction") == 1 and classes[0] == "main", "not one answer and one compaction", classes)
