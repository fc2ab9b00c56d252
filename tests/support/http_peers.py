"""Small servers over plain sockets that say byte for byte what a test wants, also what no proper server would."""

import base64
import contextlib
import functools
import gzip
import socket
import struct
import threading
import zlib
from urllib.parse import urlsplit

import attrs

HANG_GUARD = 60.0  # seconds
STEP = 0.02  # seconds between two bytes that drip
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@functools.cache
def bomb():
    """120 MB of nothing, packed."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(120)), packer.flush()])


@attrs.frozen
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Peer:
    """A server whose conduct is the last part of the path that it is asked for; anything unknown is echoed.

    Args:
        tls: an ``ssl.SSLContext`` to speak TLS with.
        host: the address to listen at.
        port: where; 0 for any that is free.
    """

    def __init__(self, tls=None, host="127.0.0.1", port=0):
        self.requests, self.connections, self.open = [], 0, 0
        self.elsewhere = ""  # where redirects lead
        self.drips = round(HANG_GUARD / STEP)  # bytes that drip
        self.payload = b""  # of ``do_payload``
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._streams = set()
        self._tls = tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=128)
        self.port = self._listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}/api"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Listen no longer and end every connection."""
        self.stopping.set()
        with contextlib.suppress(OSError):  # macOS has nothing to shut down
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_connections()

    def hang_up(self):
        """End every connection that rests now, and wait until that is done."""
        self._end_connections()
        self.wait_for(lambda: not self.open)

    def _end_connections(self):
        for stream in list(self._streams):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def wait_for(self, condition):
        """Wait for something that a connection's beginning or end brings about."""
        with self._changed:
            assert self._changed.wait_for(condition, HANG_GUARD)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                with self._changed:
                    self.connections += 1
                    self.open += 1
                    self._changed.notify_all()
                threading.Thread(target=self._serve, args=(stream, self.connections), daemon=True).start()

    def _serve(self, stream, number):
        """One connection; a client that goes away is what many tests are about."""
        with contextlib.suppress(OSError, ValueError), stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                stream = self._tls.wrap_socket(stream, server_side=True)
            self._streams.add(stream)
            with stream, stream.makefile("rb") as lines:
                while not self.stopping.is_set() and self._answer(stream, lines, number):
                    pass
        with self._changed:
            self.open -= 1
            self._streams.discard(stream)
            self._changed.notify_all()

    def _answer(self, stream, lines, number):
        """Read one request and answer it; whether the connection goes on."""
        first = lines.readline().decode()
        if not first:
            return False
        method, target, _ = first.split()
        headers = {}
        while line := lines.readline().decode().strip():
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        headers = {name: ", ".join(values) for name, values in headers.items()}
        act = self._act(target)
        if act == self.do_refused_upload:
            self.requests.append(Seen(method, target, headers, b"", number))
            return act(stream, lines, int(headers["content-length"]))
        seen = Seen(method, target, headers, lines.read(int(headers.get("content-length", 0))), number)
        self.requests.append(seen)
        return act(stream, seen) is not False

    def _act(self, target):
        return getattr(self, "do_" + target.partition("?")[0].rpartition("/")[2], self.do_echo)

    @staticmethod
    def say(stream, body, *headers, status="200 OK"):
        """A whole answer."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        stream.sendall("\r\n".join(head).encode() + body)

    def do_echo(self, stream, seen):
        """The path and body that were asked for."""
        self.say(stream, seen.target.encode() + b" " + seen.body, "Content-Type: text/plain")

    # Proper answers of many kinds.

    def do_full(self, stream, _):
        """Every header that is kept, and others."""
        self.say(
            stream, b"{}", "Content-Type: application/json", "RETRY-AFTER:  7 ", "Date: Tue, 24 Nov 2026 08:00:00 GMT",
            "X-Other: 1", "Set-Cookie: a=b; Path=/", status="503 Busy",
        )  # fmt: skip

    def do_twice(self, stream, _):
        """A header twice."""
        self.say(stream, b"", "Retry-After: 5", "Retry-After: 7", status="503 Busy")

    def do_interim(self, stream, _):
        """Several interim answers, one of which asks for a pause."""
        stream.sendall(b"HTTP/1.1 100 Continue\r\nRetry-After: 99\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        stream.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self.say(stream, b"final")

    def do_interim_busy(self, stream, _):
        """The same before a failure, which asks for none."""
        stream.sendall(b"HTTP/1.1 100 Continue\r\nRetry-After: 99\r\n\r\n")
        self.say(stream, b"final", status="503 Busy")

    def do_chunked_busy(self, stream, _):
        """A failure whose trailers ask for a pause."""
        busy = CHUNKED.replace(b"200 OK", b"503 Busy")
        stream.sendall(busy + b"3\r\nabc\r\n0\r\nRetry-After: 99\r\n\r\n")

    def do_payload(self, stream, _):
        """What the test has set."""
        self.say(stream, self.payload, "Content-Type: application/json")

    def do_html(self, stream, _):
        """A proxy's login page."""
        self.say(stream, b"<html>", "Content-Type: text/html")

    def do_empty(self, stream, _):
        """No content."""
        stream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def do_nothing(self, stream, _):
        """A success that is empty, and compressed at that."""
        self.say(stream, b"", "Content-Encoding: gzip")

    def do_gzip(self, stream, _):
        """A compressed answer."""
        self.say(stream, gzip.compress(b"plain text"), "Content-Encoding: gzip")

    def do_deflate(self, stream, _):
        """The same as zlib has it."""
        self.say(stream, zlib.compress(b"plain text"), "Content-Encoding: deflate")

    def do_rawdeflate(self, stream, _):
        """The same without zlib's frame, as some servers understand the word."""
        packer = zlib.compressobj(wbits=-15)
        self.say(stream, packer.compress(b"plain text") + packer.flush(), "Content-Encoding: deflate")

    def do_chunked(self, stream, _):
        """Chunks, with an extension and trailers."""
        stream.sendall(CHUNKED + b"3\r\nabc\r\n3;a=b\r\ndef\r\n0\r\nRetry-After: 99\r\nX-Sum: 1\r\n\r\n")

    def do_gzipchunked(self, stream, _):
        """Chunks that cut a compressed answer anywhere."""
        packed = gzip.compress(b"plain text")
        stream.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"))
        for byte in packed:
            stream.sendall(b"1\r\n" + bytes([byte]) + b"\r\n")
        stream.sendall(b"0\r\n\r\n")

    def do_close(self, stream, _):
        """An answer that ends with its connection."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbye")
        return False

    def do_old(self, stream, _):
        """An answer of a server that keeps no connection."""
        stream.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold")
        return False

    def do_refused_upload(self, stream, lines, length):
        """An answer before the body has been read."""
        self.say(stream, b"too much", "Connection: close", status="413 Content Too Large")
        stream.shutdown(socket.SHUT_WR)
        while length > 0 and (piece := lines.read(min(length, 65536))):
            length -= len(piece)
        return False

    # Redirects.

    def do_301(self, stream, seen):
        """A redirect of that status."""
        status = seen.target.partition("?")[0].rpartition("/")[2]
        self.say(stream, b"moved", f"Location: {self.elsewhere}", status=f"{status} Over there")

    do_302 = do_303 = do_307 = do_308 = do_301

    # Large answers.

    def do_large(self, stream, _):
        """A long answer of known length."""
        self.say(stream, b"x" * 100_000)

    def do_endless(self, stream, _):
        """Chunks without an end."""
        self._pour(stream, CHUNKED)

    def do_endless_failure(self, stream, _):
        """An error page without an end."""
        self._pour(stream, CHUNKED.replace(b"200 OK", b"500 Oops"))

    def do_endless_redirect(self, stream, _):
        """A redirect with a page without an end."""
        self._pour(stream, CHUNKED.replace(b"200 OK\r\n", b"302 Found\r\nLocation: /api/echo\r\n"))

    def _pour(self, stream, head):
        stream.sendall(head)
        for _ in range(100):  # megabytes: an end for who does not stop
            stream.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        stream.sendall(b"0\r\n\r\n")

    def do_bomb(self, stream, _):
        """A small answer that is large once unpacked."""
        self.say(stream, bomb(), "Content-Encoding: gzip")

    def do_deflate_bomb(self, stream, _):
        """The same in the other encoding."""
        self.say(stream, zlib.compress(b"x" * 1_000_000), "Content-Encoding: deflate")

    # Answers that do not come.

    def do_silent(self, *_):
        """No answer at all."""
        self.stopping.wait(HANG_GUARD)
        return False

    def do_stalled(self, stream, _):
        """Half an answer, then nothing."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return self.do_silent()

    def do_drip(self, stream, _):
        """A body that drips."""
        self._drip(stream, f"HTTP/1.1 200 OK\r\nContent-Length: {self.drips}\r\n\r\n".encode(), b"x", b"")

    def do_drip_head(self, stream, _):
        """A header that drips."""
        self._drip(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: ", b"x", b"\r\n\r\n")

    def do_drip_heads(self, stream, _):
        """Interim answers that drip."""
        self._drip(stream, b"", b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n")

    def do_drip_chunks(self, stream, _):
        """Chunks that drip, each a whole one."""
        self._drip(stream, CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n")

    def do_drip_size(self, stream, _):
        """A chunk's size that drips."""
        self._drip(stream, CHUNKED, b"0", b"1\r\nx\r\n0\r\n\r\n")

    def _drip(self, stream, head, drop, end):
        stream.sendall(head)
        for _ in range(self.drips):
            if self.stopping.wait(STEP):
                return
            stream.sendall(drop)
        stream.sendall(end)

    # Answers that break off, or are none.

    @staticmethod
    def _reset(stream):
        """Close at once, so that the other side hears of a reset."""
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
        return False

    def do_reset(self, stream, _):
        """The connection breaks instead of an answer."""
        return self._reset(stream)

    def do_reset_body(self, stream, _):
        """The connection breaks in the middle of an answer."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return self._reset(stream)

    def do_gone(self, *_):
        """The connection ends instead of an answer."""
        return False

    def do_half(self, stream, _):
        """The connection ends in the middle of an answer, whose length was told."""
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return False

    def do_half_head(self, stream, _):
        """The connection ends in the middle of the headers' first line."""
        stream.sendall(b"HTTP/1.")
        return False

    def do_half_chunk(self, stream, _):
        """The connection ends before the last chunk."""
        stream.sendall(CHUNKED + b"3\r\nabc\r\n")
        return False

    def do_bad_chunk(self, stream, _):
        """A chunk whose size is no number."""
        stream.sendall(CHUNKED + b"many\r\nabc\r\n0\r\n\r\n")
        return False

    def do_garbage(self, stream, _):
        """Something that is no HTTP."""
        stream.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        return False

    def do_badgzip(self, stream, _):
        """An answer that says it is compressed and is not."""
        self.say(stream, b"not compressed", "Content-Encoding: gzip")

    def do_switch(self, stream, _):
        """A change of protocols that nobody asked for."""
        stream.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n")
        return False

    def do_excess(self, stream, _):
        """An answer that is longer than it says: what is over looks like the next answer."""
        stream.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        )


class Proxy(Peer):
    """A proxy that passes plain requests on and opens tunnels; its ``requests`` hold what it could read.

    Args:
        credentials: ``user:password`` it insists on.
    """

    def __init__(self, credentials=""):
        self._wanted = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        super().__init__()
        self.url = f"http://{credentials}{'@' * bool(credentials)}127.0.0.1:{self.port}"

    def _act(self, _):
        return self._proceed

    def _proceed(self, stream, seen):
        if self._wanted and seen.headers.get("proxy-authorization") != self._wanted:
            self.say(stream, b"", "Proxy-Authenticate: Basic realm=p", status="407 Who are you")
            return False
        if seen.method == "CONNECT":
            return self._tunnel(stream, seen.target)
        return self._pass_on(stream, seen)

    def _pass_on(self, stream, seen):
        parts = urlsplit(seen.target)
        with socket.create_connection((parts.hostname, parts.port), HANG_GUARD) as onward:
            path = seen.target.partition(parts.netloc)[2]
            head = [f"{seen.method} {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
            kept = ("x-authorization", "content-length", "content-type")
            head += [f"{name}: {seen.headers[name]}" for name in kept if name in seen.headers]
            onward.sendall("\r\n".join([*head, "", ""]).encode() + seen.body)
            onward.shutdown(socket.SHUT_WR)
            _copy(onward, stream)
        return False

    def _tunnel(self, stream, target):
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), HANG_GUARD) as onward:
            stream.sendall(b"HTTP/1.1 200 Connected\r\nRetry-After: 99\r\n\r\n")
            threading.Thread(target=_copy, args=(onward, stream), daemon=True).start()
            _copy(stream, onward)
        return False


def _copy(source, sink):
    """Everything from one socket to the other."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
