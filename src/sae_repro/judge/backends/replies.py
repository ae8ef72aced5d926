"""Responses of an endpoint, read without trust."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from sae_repro.judge.protocol import Answer

MAX_BYTES = 1 << 20
"""Longest body; answers within max_tokens are far shorter."""

Hide = Callable[[str], str]


@dataclass(frozen=True)
class Reply:
    """An HTTP response; its `headers` are looked up by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answer_in(body: bytes, hide: Hide) -> Answer:
    """The text of the first choice, or the fault for which there is none; never an error."""
    if len(body) > MAX_BYTES:
        return Answer(None, f"more than {MAX_BYTES} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return Answer(None, "no JSON")
    content = _within(value, "choices", 0, "message", "content")
    return Answer(hide(content)) if isinstance(content, str) else Answer(None, "no choices")


def error_in(reply: Reply, hide: Hide) -> str:
    """The status and the endpoint's message, in one short line."""
    try:
        name = HTTPStatus(reply.status).phrase
    except ValueError:
        name = ""
    try:
        message = _within(json.loads(reply.body), "error", "message")
    except (ValueError, RecursionError):
        message = None
    text = message if isinstance(message, str) else reply.body.decode("utf-8", "replace")
    # the key is hidden before the text is cut: half a key would stay
    line = " ".join(hide(text).split())
    line = "".join(c for c in line if c.isprintable())[:200]
    return f"{reply.status} {name}".strip() + (f" ({line})" if line else "")


def retry_after(reply: Reply, now: float) -> float | None:
    """Seconds that the endpoint asks to wait, given the date; None without a valid header.

    Source: RFC 9110, section 10.2.3: seconds, or a date.
    """
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _within(value: Any, *path: str | int) -> Any:
    """The entry at `path` of a JSON value; None where the path ends early."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
