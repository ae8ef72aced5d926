"""Pins: inputs from outside the study, checked against their recorded SHA-256.

A file or a model folder is named in params.yaml together with its SHA-256: when the content
changes, the study stops instead of mixing two inputs. `sae-repro pin` writes the hashes.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sae_repro.checkpoint.files import check_files, check_links
from sae_repro.checkpoint.gguf import converted
from sae_repro.errors import Named, StudyError, shown
from sae_repro.files import sha256_file, sha256_folder
from sae_repro.stage import STATE

if TYPE_CHECKING:
    from sae_repro.params import (
        ActivationsSource,
        Cell,
        ClaimsFile,
        ConceptLabels,
        FilesSource,
        HereSubject,
        PromptFile,
    )


def model_digest(folder: Path) -> str:
    """SHA-256 over a Hugging Face folder's own files; StudyError for a link that leaves it."""
    check_links(folder)
    return sha256_folder(folder, pattern="*")


@dataclass(frozen=True)
class PinnedFile:
    """A file with its recorded SHA-256."""

    key: str
    """Where params.yaml names it."""
    name: str
    """How params.yaml names it."""
    path: Path
    sha256: str

    @property
    def what(self) -> Named:
        """Its name in messages."""
        return Named(self.key, shown(self.name, most=1000))

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file at its start, found unchanged: what is read of it is what was hashed.

        StudyError where it is missing, empty, can't be read, or has changed.
        """
        if not self.path.is_file():  # nor is a pipe opened, which would block
            raise StudyError(f"{self.what} is missing; paths start at params.yaml")
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise StudyError(f"{self.what} can't be opened ({error.strerror})") from None
        with file:
            if not os.fstat(file.fileno()).st_size:
                raise StudyError(f"{self.what} is empty")
            _compare(self.what, hashlib.file_digest(file, "sha256").hexdigest(), self.sha256)
            file.seek(0)
            yield file

    def check(self) -> None:
        """StudyError unless the file is there, and unchanged."""
        with self.opened():
            pass


def pinned_texts(source: "FilesSource", folder: Path) -> list[PinnedFile]:
    """The text files of a study, in the order of params.yaml, which `folder` holds."""
    return [
        PinnedFile("corpus.source.files", name, folder / name, sha256)
        for name, sha256 in source.files.items()
    ]


def pinned_activations(source: "ActivationsSource", folder: Path) -> list[PinnedFile]:
    """The given activations of a study, in order, and their table, if there is one, at the end."""
    table = source.table
    return [
        *(
            PinnedFile("corpus.source.files", name, folder / name, sha256)
            for name, sha256 in source.files.items()
        ),
        *(
            [PinnedFile("corpus.source.table", table.path, folder / table.path, table.sha256)]
            if table
            else []
        ),
    ]


def pinned_concepts(labels: "ConceptLabels", folder: Path) -> PinnedFile:
    """The labels of a study's own; `folder` holds params.yaml."""
    return PinnedFile("evaluate.concepts.path", labels.path, folder / labels.path, labels.sha256)


def pinned_claims(claims: "ClaimsFile", folder: Path) -> PinnedFile:
    """The study's claims; `folder` holds params.yaml."""
    return PinnedFile("compare.claims.path", claims.path, folder / claims.path, claims.sha256)


def check_model(source: "HereSubject", folder: Path) -> Path:
    """The pinned Hugging Face folder, checked to be unchanged, with safetensors weights.

    A GGUF file is dequantised to such a folder the first time. `folder` holds params.yaml.
    """
    path = folder / source.path
    what = f"subject.source.path: {path}"
    if source.kind == "gguf":
        PinnedFile("subject.source.path", source.path, path, source.sha256).check()
        return converted(path, what, folder / STATE / "converted" / source.sha256)
    check_links(path)
    check_files(path, what)
    _compare(what, model_digest(path), source.sha256)
    return path


def check_prompt(name: str, prompt: "PromptFile", folder: Path) -> Path:
    """The pinned file of the prompt `name`, found unchanged; `folder` holds params.yaml."""
    path = folder / prompt.path
    if not path.is_file():
        raise StudyError(
            f"judge.prompts.{name}.path: {path} is missing; paths start at params.yaml"
        )
    _compare(f"judge.prompts.{name}.path: {path}", sha256_file(path), prompt.sha256)
    return path


def check_import(cell: "Cell", folder: Path) -> Path | None:
    """The pinned folder of an imported cell, checked to be unchanged; None for a hub release.

    `folder` holds params.yaml. A name with a colon that is no folder is a release.
    """
    assert cell.import_ is not None
    path = folder / cell.import_
    if not path.is_dir():
        if ":" in cell.import_:
            return None
        raise StudyError(
            f"import = {cell.import_}: no such folder (paths start at params.yaml), and no "
            "release:sae_id either"
        )
    _compare(f"import = {cell.import_}", model_digest(path), cell.sha256 or "")
    return path


def check_imports(cells: "Mapping[str, Cell]", folder: Path) -> None:
    """Check that every imported cell's folder is unchanged."""
    for name, cell in cells.items():
        if cell.import_ is not None:
            try:
                check_import(cell, folder)
            except StudyError as error:
                raise StudyError(f"cells.{name}.{error}") from None


def _compare(what: object, actual: str, expected: str) -> None:
    if actual != expected:
        raise StudyError(
            f"{what} has changed: its SHA-256 is {actual}, params.yaml says {expected}; "
            "restore it, or accept the new content with `sae-repro pin`"
        )
