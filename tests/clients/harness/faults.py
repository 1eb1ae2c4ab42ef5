"""Failures that a tap plays on order: each says which requests it hits, how often, and what it does to them.

`before` runs when the request is whole and may answer it itself (then nothing goes to the provider); `during` sees each piece of
the answer and may end it. They stand on the provider's side of the router, so the router and the client must both cope.
"""
import json
import threading
import time

from tap import Closed, reset


def messages(exchange):
    """The requests that ask a model for something, as opposed to count_tokens, models and hello."""
    return exchange.method == "POST" and exchange.path == "/v1/messages"


class Fault:
    name = "fault"

    def __init__(self, match=messages, times=1):
        self.match, self.times = match, times

    def before(self, tap, exchange, client):
        return False

    def during(self, exchange, payload, client):
        """None goes on; "reset" breaks the connection; "end" says that this call has sent the end of the answer itself."""
        return None


class Answer(Fault):
    """Answer with an HTTP error in the provider's envelope, without asking the provider."""

    def __init__(self, status, kind, message, headers=(), **rest):
        super().__init__(**rest)
        self.name, self.status, self.headers = str(status), status, list(headers)
        self.body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_tap"}).encode()

    def before(self, tap, exchange, client):
        head = [("content-type", "application/json"), ("content-length", str(len(self.body))), ("request-id", "req_tap")] + self.headers
        lines = "".join("%s: %s\r\n" % pair for pair in head)
        exchange.status, exchange.answer_head = self.status, head
        exchange.answer, exchange.complete, exchange.ended = self.body, True, time.monotonic()
        client.send(("HTTP/1.1 %d Fault\r\n%s\r\n" % (self.status, lines)).encode() + self.body)
        return True


class Reset(Fault):
    """RST before a single byte of an answer."""
    name = "reset"

    def before(self, tap, exchange, client):
        reset(client.sock)
        raise Closed("upstream", True)


class Hang(Fault):
    """Takes the request and says nothing, until whoever asked has left."""
    name = "hang"

    def before(self, tap, exchange, client):
        client.sock.settimeout(60)
        try:
            client.sock.recv(1)
        except OSError:
            pass
        raise Closed("client", False)


class Cut(Fault):
    """RST right after the event that holds the `nth` occurrence of `mark` in the answer's body. The provider must answer chunked."""
    name = "cut"

    def __init__(self, mark, nth=1, last_words=b"", **rest):
        super().__init__(**rest)
        self.mark, self.nth, self.last_words = mark, nth, last_words

    def during(self, exchange, payload, client):
        whole, at = exchange.answer + payload, -1
        for _ in range(self.nth):
            at = whole.find(self.mark, at + 1)
            if at < 0:
                return None
        end = whole.find(b"\n\n", at)
        if end < 0:
            return None
        # What came in earlier pieces is already out; of this piece only what belongs to the marked event goes on.
        out = whole[len(exchange.answer):end + 2] + self.last_words
        exchange.answer += out
        exchange.arrivals.append((time.monotonic(), len(exchange.answer)))
        if out:
            client.send(b"%x\r\n%s\r\n" % (len(out), out))
        if self.last_words:
            client.send(b"0\r\n\r\n")
            return "end"
        time.sleep(0.05)                    # an RST may overtake bytes that are still unread
        return "reset"


class ErrorEvent(Cut):
    """The provider's own `event: error` inside a 200 stream, then a proper end of the body."""
    name = "error event"

    def __init__(self, mark, kind="overloaded_error", **rest):
        data = json.dumps({"type": "error", "error": {"type": kind, "message": "Overloaded"}, "request_id": "req_tap"})
        super().__init__(mark, last_words=("event: error\ndata: %s\n\n" % data).encode(), **rest)


class Together(Fault):
    """Hold matching requests until `parties` of them are here at once: passes only if they really run in parallel."""
    name = "together"

    def __init__(self, parties, wait_s=10.0, **rest):
        super().__init__(times=parties, **rest)
        self.barrier, self.wait_s, self.met = threading.Barrier(parties), wait_s, 0

    def before(self, tap, exchange, client):
        try:
            self.barrier.wait(self.wait_s)
            self.met += 1
        except threading.BrokenBarrierError:
            pass
        return False
