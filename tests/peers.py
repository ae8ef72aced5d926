"""A peer on a loopback port that misbehaves in one of the ways that are known of servers."""

import socket
import struct
import threading
from collections.abc import Callable

STEP_S = 0.05
"""Between two bytes of a peer that drips: far below any client's time-out of one read."""


class Peer:
    """Listens until it is closed, and treats every request as its `mode` says; see MODES."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.requests = 0
        """Connections on which something was received."""
        self._closed = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        scheme = "https" if mode == "no handshake" else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._listening.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                if connection.recv(65_536):
                    self.requests += 1
                    MODES[self.mode](self, connection)
            except OSError:
                pass  # the client has gone

    def _drip(self, connection: socket.socket, first: bytes) -> None:
        connection.sendall(first)
        while not self._closed.wait(STEP_S):
            connection.sendall(b" ")

    def _drip_headers(self, connection: socket.socket) -> None:
        self._drip(connection, b"HTTP/1.1 200 OK\r\nX-Slow: ")

    def _drip_body(self, connection: socket.socket) -> None:
        self._drip(connection, _head("200 OK", 100_000))

    def _never(self, connection: socket.socket) -> None:
        self._closed.wait()

    def _busy(self, connection: socket.socket) -> None:
        connection.sendall(_head("429 Too Many Requests", 0, "Retry-After: 600"))

    def _unavailable(self, connection: socket.socket) -> None:
        connection.sendall(_head("503 Service Unavailable", 0))

    def _cut(self, connection: socket.socket) -> None:
        connection.sendall(_head("200 OK", 1000) + b"{")

    def _half_closed(self, connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)
        self._closed.wait()

    def _reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _redirect(self, connection: socket.socket) -> None:
        connection.sendall(_head("302 Found", 0, f"Location: {self.url}/again"))

    def _tls(self, connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 4)

    def _flood(self, connection: socket.socket) -> None:
        connection.sendall(_head("200 OK", 1 << 40))
        while not self._closed.is_set():
            connection.sendall(b" " * 65_536)


def _head(status: str, length: int, *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


MODES: dict[str, Callable[[Peer, socket.socket], None]] = {
    "drips headers": Peer._drip_headers,
    "drips the body": Peer._drip_body,
    "never answers": Peer._never,
    "no handshake": Peer._never,
    "busy for ten minutes": Peer._busy,
    "unavailable": Peer._unavailable,
    "closes mid-body": Peer._cut,
    "half closed": Peer._half_closed,
    "resets": Peer._reset,
    "redirects in a circle": Peer._redirect,
    "speaks TLS": Peer._tls,
    "floods": Peer._flood,
}
"""What the peer does once it was asked, by name."""
SLOW = ("drips headers", "drips the body", "never answers", "no handshake")
"""Those that only a deadline ends."""
