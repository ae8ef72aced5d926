"""The prompts: files beside this one, each with its version, filled strictly."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from sae_repro.errors import StudyError
from sae_repro.judge.contexts import Context, Fenced, escape, texts, tokens
from sae_repro.judge.questions import Prompt

NAMES = ("label", "explain", "detect", "fuzz", "simulate", "specificity")
_FIRST = re.compile(r"version: ([1-9][0-9]*)\n\n")
_PLACE = re.compile(r"\{\{([a-z]+)\}\}")


@cache
def _file(name: str) -> str:
    return files("sae_repro.judge.prompts").joinpath(f"{name}.md").read_text(encoding="utf-8")


def fill(name: str, **values: str | int) -> Prompt:
    """The template `name` with `values`: fenced blocks as they are, all else escaped.

    StudyError where a placeholder has no value, or a value no placeholder.
    """
    return fill_text(name, _file(name), **values)


def fill_text(name: str, template: str, **values: str | int) -> Prompt:
    """As `fill`, of a template's text."""
    where = f"src/sae_repro/judge/prompts/{name}.md"
    first = _FIRST.match(template)
    if first is None:
        raise StudyError(f"{where}: must start with `version: N` and an empty line; add them")
    body = template[first.end() :]
    places = set(_PLACE.findall(body))
    if places != values.keys():
        raise StudyError(
            f"{where}: has placeholders for {sorted(places)}, is given {sorted(values)}; make them "
            "the same"
        )
    if re.search(r"\{\{|\}\}", _PLACE.sub("", body)):
        raise StudyError(f"{where}: a `{{{{` or `}}}}` that is no placeholder; write {{{{word}}}}")
    # in one pass: a value that looks like a placeholder stays what it is
    filled = _PLACE.sub(lambda place: _shown(values[place[1]]), body)
    return Prompt(name, int(first[1]), filled.strip())


def _shown(value: str | int) -> str:
    return value if isinstance(value, Fenced) else escape(str(value))


def label(contexts: Sequence[Context]) -> Prompt:
    """Asks for a label, or POLYSEMANTIC."""
    return fill("label", texts=texts(contexts, marked=True))


def explain(contexts: Sequence[Context]) -> Prompt:
    """Asks for a description of when the latent fires."""
    return fill("explain", texts=texts(contexts, marked=True))


def detect(explanation: str, contexts: Sequence[Context]) -> Prompt:
    """Asks in which of the texts the latent fires; no token is marked."""
    shown = texts(contexts, marked=False)
    return fill("detect", explanation=explanation, count=len(contexts), texts=shown)


def fuzz(explanation: str, contexts: Sequence[Context]) -> Prompt:
    """Asks in which of the texts the mark is on a token that activates."""
    shown = texts(contexts, marked=True)
    return fill("fuzz", explanation=explanation, count=len(contexts), texts=shown)


def simulate(explanation: str, of_one_text: Sequence[str]) -> Prompt:
    """Asks how strongly the latent fires on each token."""
    shown = tokens(of_one_text)
    return fill("simulate", explanation=explanation, count=len(of_one_text), tokens=shown)


def specificity(explanation: str, context: Context) -> Prompt:
    """Asks how well the description fits the marked token, 0 to 3."""
    return fill("specificity", explanation=explanation, texts=texts([context], marked=True))
