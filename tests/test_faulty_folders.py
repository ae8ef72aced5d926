"""Every command on what is broken, odd or closed: exit 2 and lines that name it, no traceback."""

import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer

from sae_repro import cli
from sae_repro.autoencoders import save
from sae_repro.errors import one_line

from .autoencoders.test_damaged_folders import topk
from .params.test_check import STUDY
from .params.test_hostile_files import FILES, TUNE, spelled

ROOT = Path(__file__).resolve().parents[1]

VERBS: dict[str, list[str]] = {
    "check": ["check", "{study}"],
    "cells": ["cells", "{study}"],
    "pin": ["pin", "{study}"],
    "new": ["new", "copy", "--from", "{study}"],
    "init": ["init", "{study}"],
    "renew": ["init", "--renew", "{study}"],
    "plan": ["plan", "{study}"],
    "costs": ["costs", "{study}"],
    "parallel": ["parallel", "topk", "--study", "{study}"],
    "store": ["store", "{study}"],
    "claims": ["claims", "--study", "{study}"],
    "adopt": ["adopt", "--study", "{study}"],
    "track": ["track", "{study}"],
    "commit": ["track", "{study}", "--commit", "HEAD"],
    "ui": ["ui", "{study}", "--no-browser"],
    "tune-ui": ["tune-ui", "{study}", "--no-browser"],
    "verify": ["verify", "{study}", "--study", "{study}"],
    "diff": ["diff", "HEAD", "--study", "{study}"],
    "pipelines": ["pipelines", "{study}/dvc.yaml"],
    "code": ["code"],
    "export": ["export", "topk", "--format", "saelens", "--to", "out", "--study", "{study}"],
    "dashboards": [
        "export",
        "topk",
        "--format",
        "neuronpedia",
        "--to",
        "out",
        "--study",
        "{study}",
    ],
    "import": ["import", "{study}", "--to", "out"],
    "explain": ["explain", "a text", "--cell", "topk", "--study", "{study}"],
    "steer": ["steer", "a text", "--cell", "topk", "--latent", "0=1", "--study", "{study}"],
    "truncations": ["truncations", "topk", "--study", "{study}"],
    "overlap": ["overlap", "topk", "jumprelu", "--study", "{study}"],
    "correlations": ["correlations", "topk", "--study", "{study}"],
    "consensus": ["consensus", "topk", "--to", "out", "--study", "{study}"],
}
"""Of each command that takes a folder or file, its arguments."""

WRITING: dict[str, list[str]] = {
    "schema": ["schema", "--to", "{study}"],
    "init": ["init", "{study}/made"],
    "new": ["new", "copy", "--from", "{study}"],
    "pin": ["pin", "{study}"],
    "renew": ["init", "--renew", "{study}"],
    "export": ["export", "{study}/sae", "--format", "saelens", "--to", "{study}/out"],
    "import": ["import", "{study}/sae", "--to", "{study}/out"],
}
ALL = VERBS | {f"{verb} writes": arguments for verb, arguments in WRITING.items()}

READ_LATER = {"verify", "pipelines", "code", "diff", "export", "dashboards", "import", "init"}
"""Commands that need nothing of a params.yaml: what they are given lacks something else."""

KEYS = ("corpus", "subject", "cells", "recipes", "extract", "judge", "evaluate", "track")
ODD: tuple[Any, ...] = (None, 3, "text", [], [1], {}, {"a": None}, {"source": 1}, {"source": {}})


def broken_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Contents of params.yaml, by what is wrong with them."""
    good = spelled(FILES, folder)
    yield "no YAML", b"cells: [}"
    yield "a list", b"- 1\n"
    yield "empty", b""
    yield "binary", bytes(range(256))
    yield "an unknown key", good.encode() + b"colour: 3\n"
    yield "control characters", good.encode() + b'"\\e[2K\\rok: 9 cells": "\\nok: 9 cells"\n'
    yield "raw control characters", good.encode() + b"x: \x1b[2K\rok\n"
    yield "a long name", good.replace("a.txt", "a" * 300).encode()
    yield "a root that is a number", good.replace("root: .", "root: 7").encode()
    for key in KEYS:
        for odd in ODD:
            if odd != {} or key in ("corpus", "subject", "cells", "extract"):
                yield f"{key}: {odd}", spelled({**FILES, key: odd}, folder).encode()
        yield f"no {key}", spelled({k: v for k, v in FILES.items() if k != key}, folder).encode()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root, the working folder, with a study in its folder `study`."""
    for name in ("stages", "studies"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    study_in(tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study_in(folder: Path) -> None:
    folder.mkdir()
    (folder / "params.yaml").write_text(spelled(STUDY, folder.parent))
    shutil.copy(ROOT / "dvc.yaml", folder / "dvc.yaml")
    (folder / "tune").mkdir()
    (folder / "tune/params.yaml").write_text(spelled(TUNE, folder.parent))


@contextmanager
def ended_after(seconds: int) -> Iterator[None]:
    """Serving, or waiting, is a failure."""

    def ends(*_: object) -> None:
        raise AssertionError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, ends)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str]]]:
    """Runs a command as the shell does; its exit code and the lines that it printed as errors."""

    def go(verb: str, study: str) -> tuple[int, list[str]]:
        arguments = [argument.replace("{study}", study) for argument in ALL[verb]]
        monkeypatch.setattr(sys, "argv", ["sae-repro", *arguments])
        try:
            with ended_after(60), pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            out, err = capsys.readouterr()
        lines = err.splitlines()
        assert all(one_line(line) == line for line in [*lines, *out.splitlines()]), (out, err)
        assert not any(line.startswith("ok") for line in lines)
        assert "Traceback" not in err
        return int(ended.value.code or 0), lines

    return go


def refused(done: tuple[int, list[str]]) -> None:
    code, lines = done
    assert code == 2, (code, lines)
    assert lines and all(lines)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in READ_LATER])
def test_a_broken_study_is_refused(verb: str, checkout: Path, run: Any) -> None:
    (checkout / "study/code").mkdir()
    (checkout / "study/code/version.txt").touch()
    (checkout / ".dvc").mkdir()
    for kind, content in broken_files(checkout):
        (checkout / "study/params.yaml").write_bytes(content)
        try:
            refused(run(verb, "study"))
        except BaseException as error:
            error.add_note(f"{verb}: {kind}")
            raise


def empty(folder: Path) -> None:
    folder.mkdir()


def params_a_folder(folder: Path) -> None:
    (folder / "params.yaml").mkdir(parents=True)
    (folder / "dvc.yaml").mkdir()


def dangling(folder: Path) -> None:
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml", "code", "artifacts"):
        (folder / name).symlink_to("nowhere")


def pipeline_no_text(folder: Path) -> None:
    study_in(folder)
    (folder / "params.yaml").write_bytes(b"\xff")
    (folder / "dvc.yaml").write_bytes(b"\xff")


def a_file(folder: Path) -> None:
    folder.write_text("text")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "init"])
@pytest.mark.parametrize("kind", [None, empty, params_a_folder, dangling, pipeline_no_text, a_file])
def test_what_is_no_study_is_refused(
    kind: Callable[[Path], None] | None, verb: str, checkout: Path, run: Any
) -> None:
    if kind is not None:
        kind(checkout / "other")
    refused(run(verb, "other"))


@pytest.mark.parametrize("name", ["a\nok: 9 cells", "\x1b[2K\rok: 9 cells", "x" * 300, "\u202eko"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_name_forges_no_line(name: str, verb: str, checkout: Path, run: Any) -> None:
    if len(name) < 255:
        study_in(checkout / name)
    refused(run(verb, name))


@pytest.mark.parametrize("verb", ["explain", "steer"])
def test_a_text_may_have_lines(
    verb: str, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(text: str, cell: str = "topk") -> str:
        more = ["--latent=0=1"] if verb == "steer" else []
        monkeypatch.setattr(sys, "argv", ["sae-repro", verb, text, "--cell", cell, *more])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr().err

    for text in ("two\nlines", "a\ttab", "\u202eabc", "\x1b[2K"):
        assert "no line can show" not in said(text)
    assert "the text is not UTF-8" in said("\udcff")
    assert "no line can show; rename it" in said("text", cell="to\npk")


@contextmanager
def full() -> Iterator[None]:
    """No file may have a byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("verb", WRITING)
def test_a_full_disk_is_named(verb: str, checkout: Path, run: Any) -> None:
    (checkout / ".dvc").mkdir()
    study = checkout / "study"
    (study / "code").mkdir()
    (study / "text.txt").write_text("text")
    if verb == "pin":
        source = {"kind": "files", "files": {"text.txt": "0" * 64}}
        own = spelled({**STUDY, "corpus": {"source": source}}, checkout)
        (study / "params.yaml").write_text(own)
    save(topk(), study / "sae")
    with full():
        done = run(f"{verb} writes", "study")
    refused(done)
    assert not (checkout / "studies/copy").exists()


@pytest.mark.parametrize("verb", WRITING)
def test_a_file_where_a_folder_is_meant_is_named(verb: str, checkout: Path, run: Any) -> None:
    (checkout / "file").write_text("text")
    for place in ("file", "file/below"):
        refused(run(f"{verb} writes", place))
    assert (checkout / "file").read_text() == "text"


def test_every_command_is_among_these() -> None:
    taking = {name for name in typer.main.get_command(cli.app).commands if name not in
              ("schema", "metrics")}  # fmt: skip
    assert taking == {arguments[0] for arguments in VERBS.values()}
