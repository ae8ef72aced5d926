"""The API key of an endpoint: read from the environment, sent, and never shown."""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from sae_repro.errors import StudyError

# shorter ones are placeholders ("EMPTY", "none") for local servers, and may occur as words
_LEAST_SECRET = 8


class ApiKey:
    """The secret in an environment variable, never printed; empty without a variable."""

    def __init__(self, variable: str | None) -> None:
        self._secret = "" if variable is None else _read(variable)

    def __repr__(self) -> str:
        return "ApiKey(…)"

    def headers(self) -> dict[str, str]:
        """The request header that carries it."""
        return {"Authorization": f"Bearer {self._secret}"} if self._secret else {}

    def hide(self, text: str) -> str:
        """`text` without the key, which endpoints may repeat in errors or answers."""
        if len(self._secret) < _LEAST_SECRET:
            return text
        in_json = json.dumps(self._secret)[1:-1]
        return text.replace(self._secret, "[key]").replace(in_json, "[key]")


@contextmanager
def quiet_client() -> Iterator[None]:
    """Silence the client's log, which shows responses, and these may repeat the key."""
    loggers = [logging.getLogger(name) for name in ("httpx2", "httpcore2")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _read(variable: str) -> str:
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise StudyError(
            f"judge.key_env = {variable}: not set in the environment; export it, or set "
            "judge.kind: replay to use recorded answers only"
        )
    # the client's error would repeat a key that no header can carry
    if not re.fullmatch(r"[!-~]+", secret):
        raise StudyError(
            f"judge.key_env = {variable}: its value has blanks or characters no key has; export "
            "the key alone"
        )
    return secret
