"""Requests to an endpoint, each with one deadline from the look-up of its name to the last byte."""

from collections.abc import Mapping
from threading import Lock, local

import httpx2

from sae_repro.deadline import OverdueError, within
from sae_repro.judge.backends.replies import MAX_BYTES, Reply


class Sender:
    """Sends the requests of any number of threads, each over connections of its own."""

    def __init__(self, headers: Mapping[str, str], timeout_s: float) -> None:
        self._headers = {"Content-Type": "application/json", **headers}
        self._timeout_s = timeout_s
        self._mine = local()
        self._lock = Lock()
        self._clients: set[httpx2.Client] = set()

    def post(self, url: str, content: bytes) -> Reply:
        """The response, of which at most MAX_BYTES and a piece are read.

        OverdueError after `timeout_s`, which also closes the connection; httpx2.RequestError and
        httpx2.InvalidURL as the client raises them.
        """
        client = self._client()
        try:
            return within(
                self._timeout_s,
                lambda: _post(client, url, content),
                release=lambda: self._drop(client),
            )
        except httpx2.TimeoutException as error:  # one wait took all of the time
            raise OverdueError(
                f"no complete answer within {self._timeout_s:g} s ({type(error).__name__})"
            ) from None

    def _client(self) -> httpx2.Client:
        client: httpx2.Client | None = getattr(self._mine, "client", None)
        if client is None:
            # redirects are not followed: the key goes where params.yaml says, and nowhere else
            client = httpx2.Client(
                timeout=self._timeout_s, headers=self._headers, follow_redirects=False
            )
            self._mine.client = client
            with self._lock:
                self._clients.add(client)
        return client

    def _drop(self, client: httpx2.Client) -> None:
        self._mine.client = None
        with self._lock:
            self._clients.discard(client)
        client.close()

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()


def _post(client: httpx2.Client, url: str, content: bytes) -> Reply:
    with client.stream("POST", url, content=content) as response:
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MAX_BYTES:
                break
        return Reply(response.status_code, response.headers, bytes(body))
