"""The part of a text that a model says: without the reasoning that some put in tags before it."""

import re

_NAME = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)"
_OPEN = rf"(?:<{_NAME}>|\[think\]|◁think▷)"
_CLOSE = rf"(?:</{_NAME}>|\[/think\]|◁/think▷)"
# an opening tag counts at a line's start or behind a tag: others are spoken of
_TAG = re.compile(
    rf"(?P<open>(?:^|(?<=[>\]▷]))[ \t]*{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE | re.MULTILINE
)


def spoken(text: str) -> str | None:
    """`text` without `<think>…</think>`; None where it ends inside a thought.

    Where a chat template has opened the tag, the text begins inside: what is before a closing tag
    that begins or ends a line is a thought, too. A text without thoughts stays as it is.
    """
    kept: list[str] = []
    position, inside, found = 0, "", False
    for tag in _TAG.finditer(text):
        if inside:
            if tag["close"] and _name(tag[0]) == inside:
                inside, position = "", tag.end()
        elif tag["open"]:
            kept.append(text[position : tag.start()])
            inside, found = _name(tag[0]), True
        elif _stands_alone(text, tag.start(), tag.end()):
            kept, position, found = [], tag.end(), True
    if inside:
        return None
    return "".join([*kept, text[position:]]).strip() if found else text


def _name(tag: str) -> str:
    return re.sub("[^a-z]", "", tag.lower())


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a tag begins a line, or ends one that is not the only one."""
    if start == 0 or text[start - 1] == "\n":
        return True
    rest = text[end : end + 80].lstrip(" \t\r")
    return rest.startswith("\n") or (not rest and "\n" in text[:start])
