"""The judge's prompts: versioned template files beside this one, which a study can override.

A template is `version: N`, an empty line, and the wording with its {{placeholders}}. Raise the
version with every change of wording: both are part of an answer's key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from sae_repro.errors import StudyError
from sae_repro.judge.prompts.fence import Fenced, escape
from sae_repro.judge.protocol import Prompt
from sae_repro.params import Judge
from sae_repro.pins import check_prompt

FOLDER = files("sae_repro.judge.prompts")
_HEADER = re.compile(r"version: ([1-9][0-9]*)\n\n")
_PLACEHOLDER = re.compile(r"\{\{([a-z]+)\}\}")


@dataclass(frozen=True)
class Template:
    """A prompt with placeholders."""

    name: str
    version: int
    body: str
    file: str
    """Its file, as errors name it."""

    @classmethod
    def parse(cls, name: str, text: str, file: str) -> "Template":
        """The template in `text`; StudyError without a version line, or with stray braces."""
        header = _HEADER.match(text)
        if header is None:
            raise StudyError(f"{file}: must start with `version: N` and an empty line; add them")
        body = text[header.end() :]
        if re.search(r"\{\{|\}\}", _PLACEHOLDER.sub("", body)):
            raise StudyError(
                f"{file}: a `{{{{` or `}}}}` that is no placeholder; write {{{{word}}}}"
            )
        return cls(name, int(header[1]), body, file)

    @property
    def placeholders(self) -> list[str]:
        """The names of its placeholders, in alphabetical order."""
        return sorted(set(_PLACEHOLDER.findall(self.body)))

    def require(self, names: list[str]) -> None:
        """StudyError unless its placeholders are exactly `names`."""
        if self.placeholders != names:
            raise StudyError(
                f"{self.file}: has placeholders for {self.placeholders}, must have {names}; make "
                "them the same"
            )

    def fill(self, **values: str | int) -> Prompt:
        """The prompt with `values`: fenced blocks as they are, all else escaped.

        StudyError where a placeholder has no value, or a value no placeholder.
        """
        self.require(sorted(values))
        # in one pass: a value that looks like a placeholder stays as it is
        filled = _PLACEHOLDER.sub(lambda place: _text(values[place[1]]), self.body)
        return Prompt(self.name, self.version, filled.strip())


def _text(value: str | int) -> str:
    return value if isinstance(value, Fenced) else escape(str(value))


def built_in_prompts() -> dict[str, Template]:
    """The templates in this package, by name."""
    names = (file.name for file in FOLDER.iterdir() if file.name.endswith(".md"))
    return {
        name.removesuffix(".md"): Template.parse(
            name.removesuffix(".md"),
            FOLDER.joinpath(name).read_text(encoding="utf-8"),
            f"src/sae_repro/judge/prompts/{name}",
        )
        for name in sorted(names)
    }


def load_prompts(settings: Judge, folder: Path) -> Mapping[str, Template]:
    """The study's templates by name: those of `judge.prompts`, and the built-in ones.

    `folder` holds params.yaml. StudyError, with the file, where one is missing, has changed since
    it was pinned, is not UTF-8, or has other placeholders than the template that it replaces.
    """
    templates = built_in_prompts()
    for name, file in settings.prompts.items():
        path = check_prompt(name, file, folder)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise StudyError(f"{path}: not UTF-8; save it as UTF-8") from None
        override = Template.parse(name, text, str(path))
        override.require(templates[name].placeholders)
        templates[name] = override
    return templates
