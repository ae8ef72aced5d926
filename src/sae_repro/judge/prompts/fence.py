"""Fences: texts inside prompts, on numbered lines between tags that no text can close.

Everything that comes from a text (or from another answer) is escaped. `<`, `>`, `&` and the
back-tick become entities, and so does every character that is no plain, visible one: line ends,
other control characters, direction overrides, zero-width and private ones, halves of surrogate
pairs. An excerpt is thus one line without `<` or `>`: it can close no fence, start no line of its
own, carry no mark `<<…>>` and no template's placeholder (placeholders are filled in one pass). The
escape is lossless. Plain words that give orders remain; the prompts say that excerpts are no
instructions, and the parsers accept only answers of the requested form.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# control, format, surrogate, private; blanks, ends of lines and paragraphs. Not the unassigned
# ones: each Python has fewer of them, and the prompt, with its hash, would differ
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"})


_PLAIN = re.compile(r"[^&<>`\x00-\x1f\x7f-\U0010ffff]*")  # most texts: nothing to escape


@dataclass(frozen=True)
class Context:
    """A text around a token, as contexts.parquet has it."""

    before: str
    token: str
    after: str


class Fenced(str):
    """Text that has been escaped and fenced: a template takes it as it is."""


def escape(text: str) -> str:
    """`text` on one line, without `<`, `>`, back-ticks and characters that don't show."""
    return text if _PLAIN.fullmatch(text) else "".join(_escaped(c) for c in text)


def _escaped(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character == " ":
        return character
    if character == "`" or unicodedata.category(character) in _INVISIBLE:
        return f"&#x{ord(character):x};"
    return character


def fenced_texts(contexts: Sequence[Context], *, marked: bool) -> Fenced:
    """The contexts between <texts> and </texts>, each token between << and >> if `marked`."""
    start, end = ("<<", ">>") if marked else ("", "")
    return _fence(
        "texts",
        [f"{escape(c.before)}{start}{escape(c.token)}{end}{escape(c.after)}" for c in contexts],
    )


def fenced_tokens(texts: Sequence[str]) -> Fenced:
    """The tokens between <tokens> and </tokens>, one per line."""
    return _fence("tokens", [escape(token) for token in texts])


def _fence(name: str, lines: Sequence[str]) -> Fenced:
    numbered = [f"{i}: {line}" for i, line in enumerate(lines, start=1)]
    return Fenced("\n".join([f"<{name}>", *numbered, f"</{name}>"]))
