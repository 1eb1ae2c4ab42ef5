"""What every scenario uses: the list of scenarios, the world they run in, and the checks that several of them share."""
import os

from claude import Claude
from faults import messages
from stack import sent_keys

SCENARIOS = []


class Wrong(Exception):
    """A check failed; the text says what was seen."""


def check(condition, text, *seen):
    if not condition:
        raise Wrong(text + ("; seen: " + ", ".join(str(s) for s in seen) if seen else ""))


def scenario(name, router_only=False):
    """Registers a function(world). `router_only`: it means nothing without a router."""
    def register(function):
        SCENARIOS.append((name, function, router_only))
        return function
    return register


class World:
    """The stack, the clients, and a directory for this scenario alone."""

    def __init__(self, stack, clients, directory):
        self.stack, self.clients, self.directory = stack, clients, directory
        self.front, self.back = stack.front, stack.back
        self.machines = 0
        self.note = ""                      # a figure that the scenario measured, for its line
        os.makedirs(directory)

    def machine(self, credentials=None):
        self.machines += 1
        if credentials is None:
            credentials = {"ANTHROPIC_AUTH_TOKEN": self.stack.key}
        return Claude(self.clients.claude, self.stack.url, os.path.join(self.directory, "machine-%d" % self.machines), credentials)

    def asked(self):
        """The model requests that the client sent; `given` are those that the provider got."""
        return [e for e in self.front.seen() if messages(e)]

    def given(self):
        return [e for e in self.back.seen() if messages(e)]


def answered(run, text="SIM-OK"):
    check(not run.failed, "claude reports a failure", run.brief())
    check(text in run.answer, "the answer lacks %r" % text, run.brief())


def clean(world, run, turns):
    """Strict: no retry, no dead stream, each turn asked once, each answer whole on both sides of the router."""
    check(run.retries == 0, "claude retried", run.retries)
    check(run.messages() and all(m.finished for m in run.messages()), "a stream ended without a stop reason", len(run.messages()))
    check(len(world.asked()) == turns, "claude sent %d model requests, not %d" % (len(world.asked()), turns), world.asked())
    check(len(world.given()) == turns, "the provider got %d model requests, not %d" % (len(world.given()), turns), world.given())
    for e in world.asked() + world.given():
        check(e.status == 200 and e.complete, "an answer broke off", e)
    transparent(world)


# What the router may change between the client and the provider (DESIGN 5, the edits table), and why. All else keeps order, case and
# duplicates: names are compared as written.
REQUEST_EDITS = {
    "host": "names the provider, not forebay",
    "connection": "hop by hop", "keep-alive": "hop by hop", "te": "hop by hop", "transfer-encoding": "hop by hop",
    "content-length": "a framing of its own on each hop; the body itself is compared",
    "authorization": "the developer's key goes, the org's credential comes", "x-api-key": "as authorization",
    "cookie": "never leaves", "api-key": "as authorization", "x-goog-api-key": "as authorization",
    "forwarded": "who asks stays inside", "x-real-ip": "likewise", "via": "likewise", "accept-encoding": "identity, because answers are read as they pass",
}
ANSWER_EDITS = {
    "connection": "hop by hop", "keep-alive": "hop by hop", "transfer-encoding": "hop by hop", "content-length": "framing",
    "set-cookie": "never reaches a developer", "anthropic-organization-id": "names the org's account", "alt-svc": "leads past forebay", "date": "may be filled in",
}


def kept(head, edits):
    return [(n, v) for n, v in head if n.lower() not in edits and not n.lower().startswith(("x-forebay-", "anthropic-ratelimit-"))]


def transparent(world):
    """Everything that reached the provider is what the client sent, but for the edits; and the same for the answers."""
    sent = {}
    for e in world.front.seen():
        sent.setdefault((e.method, e.target, e.body_sha256), []).append(e)
    for got in world.back.seen():
        if got.path.startswith("/v1/models"):
            continue                        # the router's own list, asked when and as it sees fit
        pairs = sent.get((got.method, got.target, got.body_sha256))
        check(pairs, "the provider got a request that no client sent like this (method, target or body differ)", got)
        same = [e for e in pairs if kept(e.head, REQUEST_EDITS) == kept(got.head, REQUEST_EDITS)]
        check(same, "the head changed on its way to the provider", kept(pairs[0].head, REQUEST_EDITS), kept(got.head, REQUEST_EDITS))
        if got.complete:
            same = [e for e in same if e.answer == got.answer and e.status == got.status]
            check(same, "the answer's body or status changed on its way to the client", got)
            check(any(kept(e.answer_head, ANSWER_EDITS) == kept(got.answer_head, ANSWER_EDITS) for e in same),
                  "the answer's head changed", kept(same[0].answer_head, ANSWER_EDITS), kept(got.answer_head, ANSWER_EDITS))
        if world.stack.routed:
            check(sent_keys(got) == [world.stack.credential], "the provider got another credential than the org's", len(sent_keys(got)))
            leaked = [n for n, v in got.head if world.stack.key in v] + ["body"] * (world.stack.key.encode() in got.body)
            check(not leaked, "the developer's key reached the provider", leaked)


def prompt_delivery(world, most_ms=50.0):
    """No piece of a stream waits in the router: each amount of answer is at the client within `most_ms` of leaving the provider."""
    for got in world.given():
        pair = [e for e in world.asked() if e.answer == got.answer and e.body == got.body]
        if not pair:
            continue
        for at, size in got.arrivals:
            there = [t for t, have in pair[0].arrivals if have >= size]
            if there:
                late_ms = (there[0] - at) * 1000
                check(late_ms <= most_ms, "a piece of the stream came %.0f ms late" % late_ms, "%d bytes of %d" % (size, len(got.answer)))
