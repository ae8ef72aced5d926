"""Responses of an endpoint, read without trust: what the model said, or why nothing was."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal

from sae_repro.judge.thoughts import spoken

MAX_BYTES = 1 << 20
"""Longest body; answers within max_tokens are far shorter."""

ENDED = frozenset({"", "stop", "eos", "eos_token", "end_turn", "end", "stop_sequence", "complete",
                   "completed", "done"})  # fmt: skip
"""Reasons to finish (in small letters) of a model that had no more to say."""

CUT = frozenset({"length", "max_tokens", "max_output_tokens", "max_completion_tokens",
                 "model_length", "token_limit"})  # fmt: skip

# a comment ends at its first "-->": else the ways to split n comments would be 2ⁿ. Possessive
# quantifiers would do, too, but Python 3.11.2 matches groups with them wrong
_HTML = re.compile(
    r"\s*(?:(?:<!--(?:(?!-->).)*-->|<\?xml[^>]*>)\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_ERROR_KEYS = ("error", "errors", "detail")

Hide = Callable[[str], str]


@dataclass(frozen=True)
class Reply:
    """An HTTP response; its `headers` are looked up by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class NoText:
    """What came in place of an answer; `hide` has been applied to `found`."""

    found: str
    kind: Literal["unreadable", "error", "cut", "withheld", "silent"] = "unreadable"
    code: int | None = None
    """The HTTP status that an error names, where it names one."""
    said: str = ""
    """The part of an answer that came before it was cut off."""


def text_in(body: bytes, hide: Hide) -> str | NoText:
    """What the model says in the first choice of a response with status 200; never an error.

    Reasoning, in a field of its own or in tags, is no part of it.
    """
    if len(body) > MAX_BYTES:
        return NoText(f"more than {MAX_BYTES} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return _no_json(body, hide)
    value = value[0] if isinstance(value, list) and value else value  # as one vendor's errors come
    error = _error(value, hide) or _error(_within(value, "choices", 0), hide)
    if error is not None:
        return error
    choice = _within(value, "choices", 0)
    if not isinstance(choice, dict):
        return NoText(f"JSON without choices ({short(message_in(body), hide, 100)})")
    return _text_of(choice, hide)


def _text_of(choice: Mapping[str, Any], hide: Hide) -> str | NoText:
    reason = choice.get("finish_reason") or ""
    if not isinstance(reason, str) or reason.lower() not in ENDED:
        return _unfinished(reason, _joined(_within(choice, "message", "content")), hide)
    refusal = _within(choice, "message", "refusal")
    if refusal:
        return NoText(f"a refusal ({short(str(refusal), hide)})", "withheld")
    text = _joined(_within(choice, "message", "content"))
    if text is None:
        return NoText("a message without a text", "silent")
    said = spoken(text)
    if said is None:
        return NoText("reasoning that was cut off before the answer", "cut")
    if not said.strip():
        return NoText("a message with an empty text", "silent")
    found = instead_of_answer(said)
    return hide(said) if found is None else NoText(f"{found} in place of the model's text", "error")


def _unfinished(reason: object, text: str | None, hide: Hide) -> NoText:
    name = short(str(reason), hide)
    if isinstance(reason, str) and reason.lower() in CUT:
        found = f"an answer cut off at max_tokens (finish_reason {name})"
        return NoText(found, "cut", said=hide(spoken(text or "") or ""))
    if name.lower() in ("content_filter", "safety", "recitation", "prohibited_content", "refusal"):
        return NoText(f"an answer withheld by a filter (finish_reason {name})", "withheld")
    return NoText(f"an answer that did not end (finish_reason {name})", "silent")


def _joined(content: Any) -> str | None:
    """The text of a message: a string, or a list of parts of which those of reasoning are left out.

    None without a text, or where a part is neither.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            continue
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts) if texts else None


def _no_json(body: bytes, hide: Hide) -> NoText:
    text = body.decode("utf-8", "replace")
    if _HTML.match(text):
        title = _TITLE.search(text)
        return NoText("an HTML page" + (f" ({short(title[1], hide)})" if title else ""))
    return NoText(f"no JSON ({short(text, hide, 60)})" if text.strip() else "an empty body")


def _error(value: Any, hide: Hide) -> NoText | None:
    error = _within(value, "error")
    if not error or isinstance(value, str):
        return None
    message, code = _within(error, "message"), _within(error, "code")
    text = message if isinstance(message, str) else json.dumps(error)
    status = code if isinstance(code, int) and 400 <= code < 600 else None
    number = "" if status is None else f"{status} "
    return NoText(f"the error {number}({short(text, hide)})", "error", status)


def instead_of_answer(text: str) -> str | None:
    """What `text` is, where no model says it: a web page, or a server's error."""
    if _HTML.match(text):
        return "an HTML page"
    if text.lstrip()[:1] != "{":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_error = isinstance(value, dict) and any(value.get(key) for key in _ERROR_KEYS)
    return "an error object" if is_error else None


def error_in(reply: Reply, hide: Hide) -> str:
    """The status and the endpoint's message, in one short line."""
    try:
        name = HTTPStatus(reply.status).phrase
    except ValueError:
        name = ""
    line = short(message_in(reply.body), hide)
    return f"{reply.status} {name}".strip() + (f" ({line})" if line else "")


def message_in(body: bytes) -> str:
    """The message of an error's body, the title of a page, or else the body; the key may be in."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        title = _TITLE.search(text)
        return title[1] if title and _HTML.match(text) else text
    for path in (("error", "message"), ("error",), ("message",), ("detail",)):
        found = _within(value, *path)
        if isinstance(found, str):
            return found
    return text


def short(text: str, hide: Hide, most: int = 200) -> str:
    """`text` on one line of at most `most` printable characters."""
    # the key is hidden before the text is cut: half a key would stay
    line = " ".join(hide(text).split())
    return "".join(c for c in line if c.isprintable())[:most]


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
