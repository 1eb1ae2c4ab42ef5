"""Scenarios of messy laptops: credentials left over, empty, wrong, or of another service. It works, or says why after one request."""
import json
import os

from judge import answered, check, clean, scenario
from stack import CONTACT

LEFTOVER = "sk-ant-api03-" + "L0ver" * 19
LOGIN = "sk-ant-oat01-" + "A" * 80


def refused_once(world, run, names):
    """The refusal is on the terminal, in our words, after one request, fast, and nothing went to the provider."""
    text = run.out + run.err
    check(len(world.asked()) == 1, "not one request but %d" % len(world.asked()), world.asked())
    check(run.code != 0, "claude ended as if all were well", text[-300:])
    check("forebay" in text, "the terminal does not say who refused", text[-300:])
    if world.stack.routed:
        check(CONTACT in text, "the terminal does not say whom to ask", text[-300:])
        for name in names:
            check(name.lower() in text.lower(), "the terminal does not name what came (%r)" % name, text[-400:])
    check(not world.given(), "a refused request reached the provider", world.given())
    check(world.asked()[0].answer_header("x-should-retry") == "false", "no x-should-retry: false")
    check(run.took_s < 15, "the refusal took %.1f s" % run.took_s)
    for secret in [LEFTOVER, world.stack.key] + [v for n, v in world.asked()[0].head if n.lower() in ("authorization", "x-api-key")]:
        check(secret not in text, "the refusal shows a credential")


@scenario("leftover ANTHROPIC_API_KEY beside the token")
def leftover(world):
    run = world.machine({"ANTHROPIC_AUTH_TOKEN": world.stack.key, "ANTHROPIC_API_KEY": LEFTOVER}).say("say hi")
    answered(run)
    clean(world, run, turns=1)
    check(world.asked()[0].header("x-api-key") == LEFTOVER, "claude no longer sends both credentials: this scenario shows nothing")
    if world.stack.routed:
        leaked = [n for n, v in world.given()[0].head if LEFTOVER in v]
        check(not leaked, "the leftover key was sent on to the provider", leaked)


@scenario("the key in both headers")
def both_headers(world):
    """What an apiKeyHelper does: the same key as Authorization and x-api-key."""
    machine = world.machine({})
    helper = machine.file("helper.sh", "#!/bin/sh\necho %s\n" % world.stack.key)
    os.chmod(helper, 0o755)
    run = machine.say("say hi", "--settings", json.dumps({"apiKeyHelper": helper}))
    answered(run)
    clean(world, run, turns=1)
    check(world.asked()[0].header("x-api-key") and world.asked()[0].header("authorization"), "the helper no longer fills both headers")


@scenario("empty ANTHROPIC_API_KEY beside the token")
def empty(world):
    run = world.machine({"ANTHROPIC_AUTH_TOKEN": world.stack.key, "ANTHROPIC_API_KEY": ""}).say("say hi")
    answered(run)
    clean(world, run, turns=1)


@scenario("wrong x-api-key")
def wrong_key(world):
    refused_once(world, world.machine({"ANTHROPIC_API_KEY": LEFTOVER}).say("say hi", plain=True, timeout_s=20), ["Anthropic"])


@scenario("wrong token")
def wrong_token(world):
    typo = world.stack.key[:-1] + ("0" if world.stack.key[-1] != "0" else "1")
    refused_once(world, world.machine({"ANTHROPIC_AUTH_TOKEN": typo}).say("say hi", plain=True, timeout_s=20), [])


@scenario("OpenRouter key")
def openrouter_key(world):
    run = world.machine({"ANTHROPIC_AUTH_TOKEN": "sk-or-v1-" + "0a1b" * 16}).say("say hi", plain=True, timeout_s=20)
    refused_once(world, run, ["OpenRouter"])


def login(machine):
    """A developer who once ran /login: `claude` then sends this when only the base URL is set."""
    os.makedirs(os.path.join(machine.home, ".claude"))
    with open(os.path.join(machine.home, ".claude", ".credentials.json"), "w") as file:
        json.dump({"claudeAiOauth": {"accessToken": LOGIN, "refreshToken": "sk-ant-ort01-" + "B" * 80,
                                     "expiresAt": 4102444800000, "scopes": ["user:inference", "user:profile"],
                                     "subscriptionType": "max", "rateLimitTier": "default_claude_max_20x"}}, file)


@scenario("claude.ai login with only the URL set")
def only_login(world):
    """A 401 makes `claude` refresh its login and ask again, so the router needs a status that it takes as final."""
    machine = world.machine({})
    login(machine)
    run = machine.say("say hi", plain=True, timeout_s=20)
    if world.stack.routed:                  # the stand-in answers 401 to everyone
        refused_once(world, run, ["claude.ai"])
    check("sk-ant-oat" in (world.asked()[0].header("authorization") or ""), "claude no longer sends its login: this scenario shows nothing")


@scenario("claude.ai login beside the token")
def login_and_token(world):
    machine = world.machine()
    login(machine)
    run = machine.say("say hi")
    answered(run)
    clean(world, run, turns=1)


@scenario("no credential")
def nothing(world):
    """`claude` itself refuses to start without any; nothing may have been asked."""
    run = world.machine({}).say("say hi", plain=True, timeout_s=20)
    check(run.code != 0 and "login" in (run.out + run.err), "claude started without a credential", run.brief())
    check(not world.asked(), "a request was sent", world.asked())


def refused_in_terminal(world, machine):
    machine.past_first_start()
    terminal = machine.terminal()
    try:
        check(terminal.wait("for agents"), "claude did not start in the terminal", terminal.screen[-300:])
        terminal.type("say hi")
        check(terminal.wait("forebay:", 10), "the refusal is not on the terminal", terminal.screen[-400:])
        terminal.pump(2)
    finally:
        terminal.close()
    check(len(world.asked()) == 1, "not one request but %d" % len(world.asked()), world.asked())
    check(not world.given(), "a refused request reached the provider")
    return terminal.screen


@scenario("wrong token in a terminal")
def wrong_token_terminal(world):
    refused_in_terminal(world, world.machine({"ANTHROPIC_AUTH_TOKEN": "nobody-knows-this"}))


@scenario("claude.ai login in a terminal", router_only=True)
def login_terminal(world):
    """403 is no way out: in its auto mode `claude` then asks once more without its safeguards field. Nor is "run /login" good advice."""
    machine = world.machine({})
    login(machine)
    screen = refused_in_terminal(world, machine)
    check("run/login" not in screen.replace(" ", ""), "claude advises to log in, which is what this developer did", screen[-300:])
