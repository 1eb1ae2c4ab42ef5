"""crooked.py PORT UPSTREAM_PORT KEY FAULT   A small router that does one thing wrong, to prove that the scenarios notice it.

With the fault "none" it does what they ask for. It is a measuring weight for the judges (selftest.py), not a router to use.
"""
import http.client
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, UPSTREAM, KEY, FAULT = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
CREDENTIAL = os.environ["FOREBAY_CLIENTS_CREDENTIAL"]
HOP = ("host", "connection", "keep-alive", "transfer-encoding", "content-length", "accept-encoding", "authorization", "x-api-key", "cookie")
ONE_AT_A_TIME = threading.Lock()
KINDS = (("sk-ant-oat", 402, "a claude.ai login"), ("sk-or-", 401, "an OpenRouter key"), ("sk-ant-", 401, "an Anthropic key"), ("", 401, "an unknown key"))


class Router(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def error(self, status, kind, text, *more):
        body = json.dumps({"type": "error", "error": {"type": kind, "message": text}, "request_id": "fby_1"}).encode()
        self.send_response_only(status)
        for name, value in (("content-type", "application/json"), ("content-length", str(len(body))), *more):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def any(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/api/hello":
            self.send_response_only(200)
            self.send_header("content-length", "0")
            return self.end_headers()
        keys = [self.headers.get("x-api-key") or "", (self.headers.get("authorization") or "").partition(" ")[2]]
        known = KEY in keys and not (FAULT == "first-header-only" and keys[0] and keys[0] != KEY)
        if not known:
            status, what = next((s, w) for start, s, w in KINDS if any(k.startswith(start) and k for k in keys))
            status = 401 if FAULT == "login-401" else status
            text = "forebay: %s came, which is not known here. Ask for a key. #ai-platform on Slack" % ("something" if FAULT == "vague" else what)
            return self.error(status, "authentication_error", text, *([] if FAULT == "no-should-retry" else [("x-should-retry", "false")]))
        if FAULT == "one-at-a-time":
            with ONE_AT_A_TIME:
                return self.relay(body)
        return self.relay(body)

    def upstream(self, body):
        if FAULT == "re-encode" and body:
            body = json.dumps(json.loads(body), sort_keys=True).encode()
        conn = http.client.HTTPConnection("127.0.0.1", UPSTREAM, timeout=60)
        conn.putrequest(self.command, self.path.split("?")[0] if FAULT == "drop-query" else self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP and not (FAULT == "drop-beta" and name == "anthropic-beta"):
                conn.putheader(name.lower() if FAULT == "lower-case" else name, value)
        conn.putheader("Host", "127.0.0.1")
        conn.putheader("x-api-key", self.headers.get("authorization", "")[7:] if FAULT == "pass-key" else CREDENTIAL)
        if body:
            conn.putheader("Content-Length", str(len(body)))
        conn.endheaders(body or None)
        return conn.getresponse()

    def relay(self, body):
        try:
            answer = self.upstream(body)
            if FAULT == "retry" and answer.status in (429, 529):
                answer = self.upstream(body)
        except (OSError, http.client.HTTPException):
            return self.error(502, "api_error", "forebay: the provider broke off. Try again.")
        if answer.status == 401 and FAULT != "pass-401":
            return self.error(502, "api_error", "forebay: the provider refused the organisation's credential. Tell #ai-platform on Slack")
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP and not (FAULT == "eat-retry-after" and name.lower() == "retry-after"):
                self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self.pieces(answer)
        except (OSError, http.client.HTTPException):
            if FAULT == "clean-end":
                self.wfile.write(b"0\r\n\r\n")
            elif FAULT == "late-error":
                self.piece(b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"broke"}}\n\n')
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

    def pieces(self, answer):
        held = b""
        while part := answer.read1(65536):
            if FAULT == "hold":
                held += part
            else:
                self.piece(part)
        if answer.length or (answer.chunked and answer.chunk_left is not None and not answer.isclosed()):
            raise http.client.IncompleteRead(b"")
        if held:
            time.sleep(0.2)
            self.piece(held)
        self.wfile.write(b"0\r\n\r\n")

    def piece(self, part):
        if FAULT == "alter":
            part = part.replace(b'"output_tokens":', b'"output_tokens": ')
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    do_GET = do_POST = do_HEAD = any


if __name__ == "__main__":
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", PORT), Router).serve_forever()
