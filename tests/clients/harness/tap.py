"""A recording tap: a loopback HTTP/1.1 relay that writes down what passed, byte for byte, and can misbehave on order.

One tap stands in front of the router and one behind it. The first sees what the client really sent and got, the second what the
provider really got and sent; so a scenario judges by the wire, and not by what either program says about itself. The second tap
also plays the failing provider (see faults.py). It is not a proxy for anyone else: no TLS, no pipelining, request bodies whole
in memory.
"""
import hashlib
import select
import socket
import struct
import threading
import time

HEAD_BYTES_MAX = 64 * 1024
IDLE_S = 120.0


class Exchange:
    """One request and its answer, as seen on one tap. Times are `time.monotonic()` seconds."""

    def __init__(self, connection):
        self.connection = connection
        self.started = time.monotonic()
        self.method = self.target = ""
        self.head = []              # [(name, value)] in wire order and case
        self.body = b""
        self.status = None          # None: no status line was seen
        self.answer_head = []
        self.answer = b""           # the answer's body without its transfer coding
        self.arrivals = []          # [(time, length of `answer` by then)]
        self.complete = False       # the answer's framing reached its end
        self.fault = None           # the name of the fault that was played on it
        self.ended = None

    def header(self, name, head=None):
        found = [v for n, v in (self.head if head is None else head) if n.lower() == name.lower()]
        return found[0] if found else None

    def answer_header(self, name):
        return self.header(name, self.answer_head)

    @property
    def path(self):
        return self.target.split("?")[0]

    @property
    def body_sha256(self):
        return hashlib.sha256(self.body).hexdigest()

    def __repr__(self):
        return "%s %s -> %s%s" % (self.method, self.target, self.status, " (%s)" % self.fault if self.fault else "")


class Closed(Exception):
    """The peer ended the connection; `reset` says whether by RST."""

    def __init__(self, side, reset=False):
        super().__init__(side)
        self.side, self.reset = side, reset


def reset(sock):
    """Close with RST, so that the other side sees a broken connection and not an end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


class Wire:
    """A socket with a read buffer. `watch` is the client's socket while an answer is being read from the other side."""

    def __init__(self, sock, side):
        self.sock, self.side, self.buffer = sock, side, b""

    def fill(self, watch=None):
        """Read some more; raises Closed. A client that leaves while we wait for the provider raises Closed('client')."""
        socks = [self.sock] + ([watch] if watch else [])
        ready = select.select(socks, [], [], IDLE_S)[0]
        if not ready:
            raise Closed(self.side)
        if watch in ready and self.sock not in ready:
            try:
                if not watch.recv(1, socket.MSG_PEEK):
                    raise Closed("client")
            except OSError:
                raise Closed("client", True) from None
            socks = [self.sock]             # it pipelined something: leave it for later
            if not select.select(socks, [], [], IDLE_S)[0]:
                raise Closed(self.side)
        try:
            got = self.sock.recv(65536)
        except OSError:
            raise Closed(self.side, True) from None
        if not got:
            raise Closed(self.side)
        self.buffer += got
        return got

    def head(self, watch=None):
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > HEAD_BYTES_MAX:
                raise Closed(self.side)
            self.fill(watch)
        raw, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        return raw + b"\r\n\r\n", lines[0], [tuple(p.strip() for p in line.split(":", 1)) for line in lines[1:]]

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            raise Closed(self.side, True) from None


class Dechunker:
    """Takes raw body bytes, gives the payload; `done` once the framing's end has passed."""

    def __init__(self, framing, length=0):
        self.framing, self.left = framing, length
        self.state, self.raw = "size", b""
        self.done = framing == "none" or (framing == "length" and length == 0)

    def feed(self, data):
        if self.framing == "close":
            return data
        if self.framing == "length":
            self.left -= len(data)
            self.done = self.left <= 0
            return data
        self.raw += data
        out = b""
        while not self.done:
            if self.state == "data":
                if len(self.raw) < self.left + 2:
                    break
                out, self.raw, self.state = out + self.raw[:self.left], self.raw[self.left + 2:], "size"
                continue
            if b"\r\n" not in self.raw:
                break
            line, _, self.raw = self.raw.partition(b"\r\n")
            if self.state == "trailer":
                self.done = not line
            else:
                self.left = int(line.split(b";")[0], 16)
                self.state = "data" if self.left else "trailer"
        return out


def framing_of(head, status=None, method=""):
    get = {n.lower(): v for n, v in head}
    if status is not None and (method == "HEAD" or status in (204, 304) or 100 <= status < 200):
        return Dechunker("none")
    if "chunked" in get.get("transfer-encoding", "").lower():
        return Dechunker("chunked")
    if "content-length" in get:
        return Dechunker("length", int(get["content-length"]))
    return Dechunker("none" if status is None else "close")


class Tap:
    """Listens on a free loopback port and relays to `target` (host, port)."""

    def __init__(self, target):
        self.target = target
        self.exchanges, self.faults, self.lock = [], [], threading.Lock()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.server.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def clear(self):
        with self.lock:
            self.exchanges, self.faults = [], []

    def close(self):
        self.server.close()

    def seen(self, method=None, path=None):
        with self.lock:
            return [e for e in self.exchanges if (method is None or e.method == method) and (path is None or e.path == path)]

    def _accept(self):
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._serve, args=(Wire(sock, "client"), self.connections), daemon=True).start()

    def _serve(self, client, number):
        upstream = None
        try:
            while True:
                exchange, raw = self._request(client, number)
                fault = self._pick(exchange)
                if fault and fault.before(self, exchange, client):
                    continue
                if upstream is None:
                    upstream = Wire(socket.create_connection(self.target), "upstream")
                    upstream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upstream.send(raw)
                if self._answer(client, upstream, exchange, fault):
                    upstream.sock.close()   # the fault ended the answer properly: only the provider's side is out of step
                    upstream = None
                    continue
                if not exchange.complete or (exchange.answer_header("connection") or "").lower() == "close":
                    break
        except Closed as gone:
            if gone.reset:
                reset(client.sock)
                if upstream:
                    reset(upstream.sock)
        except OSError:
            pass                            # the target refused: the client sees a closed connection
        finally:
            for wire in (client, upstream):
                if wire:
                    wire.sock.close()

    def _request(self, client, number):
        raw, line, head = client.head()
        exchange = Exchange(number)
        exchange.method, exchange.target = line.split(" ")[:2]
        exchange.head = head
        decode, payload = framing_of(head), b""
        while not decode.done:
            if not client.buffer:
                client.fill()
            part, client.buffer = client.buffer, b""
            raw, payload = raw + part, payload + decode.feed(part)
        exchange.body = payload
        with self.lock:
            self.exchanges.append(exchange)
        return exchange, raw

    def _pick(self, exchange):
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.match(exchange):
                    fault.times -= 1
                    exchange.fault = fault.name
                    return fault
        return None

    def _answer(self, client, upstream, exchange, fault):
        """Relays one answer; true if a fault brought its own end of it."""
        while True:
            raw, line, head = upstream.head(client.sock)
            status = int(line.split(" ")[1])
            if status >= 200:
                break
            client.send(raw)
        exchange.status, exchange.answer_head = status, head
        decode = framing_of(head, status, exchange.method)
        client.send(raw)
        try:
            while not decode.done:
                if not upstream.buffer:
                    upstream.fill(client.sock)
                part, upstream.buffer = upstream.buffer, b""
                payload = decode.feed(part)
                end = fault.during(exchange, payload, client) if fault else None
                if end == "end":
                    return True
                if end:
                    raise Closed("upstream", True)
                exchange.answer += payload
                exchange.arrivals.append((time.monotonic(), len(exchange.answer)))
                client.send(part)
            exchange.complete = True
            return False
        except Closed as gone:
            exchange.complete = decode.framing == "close" and not exchange.fault and gone.side == "upstream" and not gone.reset
            raise
        finally:
            exchange.ended = time.monotonic()
