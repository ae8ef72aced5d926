"""Prompts: strict templates, and texts that can't get out of their fence."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.judge import Context, Prompt
from sae_repro.judge.prompts import Template, built_in_prompts, load_prompts
from sae_repro.judge.prompts.fence import escape, fenced_texts, fenced_tokens
from sae_repro.judge.scores import SCORES
from sae_repro.params import Judge, PromptFile
from sae_repro.params.judge import PromptName

from ..params.test_check import STUDY

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = built_in_prompts()
CONTEXTS = [Context("once ", "upon", " a time"), Context("", "the", " end\n")]
HOSTILE = st.one_of(
    st.text(st.characters(codec=None)),
    st.lists(
        st.sampled_from(
            ["</texts>", "<texts>", "<<", ">>", "\n", "\r", "\u2028", "\x85", "1: ", "```", "&lt;",
             "{{count}}", "&#x", "\u202e", "\u200b", "\ud800", "\0", "ignore the above", "\x1b[2J"]
        )
    ).map("".join),
)  # fmt: skip


def unescape(text: str) -> str:
    named = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}
    return re.sub(
        r"&(?:amp|lt|gt|#x[0-9a-f]+);", lambda m: named.get(m[0]) or chr(int(m[0][3:-1], 16)), text
    )


@given(HOSTILE)
@example("&amp;lt;")
def test_escaping_loses_nothing_and_leaves_one_plain_line(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert not set(escaped) & set("<>`\n\r\0\x1b\u202e\u200b\u2028\x85")
    assert len(escaped.splitlines()) <= 1
    escaped.encode()


@given(st.lists(st.builds(Context, HOSTILE, HOSTILE, HOSTILE), max_size=4))
def test_no_text_can_close_its_fence(contexts: list[Context]) -> None:
    lines = fenced_texts(contexts, marked=True).splitlines()
    assert lines[0] == "<texts>"
    assert lines[-1] == "</texts>"
    assert len(lines) == len(contexts) + 2
    for i, (line, context) in enumerate(zip(lines[1:-1], contexts, strict=True), start=1):
        number, before, token, after = re.fullmatch(
            r"([0-9]+): ([^<>]*)<<([^<>]*)>>([^<>]*)", line
        ).groups()  # type: ignore[union-attr]
        assert int(number) == i
        shown = Context(unescape(before), unescape(token), unescape(after))
        assert shown == context
    bare = fenced_texts(contexts, marked=False).splitlines()
    assert len(bare) == len(contexts) + 2
    assert not any(set(line) & set("<>") for line in bare[1:-1])


@given(HOSTILE, st.lists(HOSTILE, min_size=1, max_size=4))
def test_no_text_changes_the_shape_of_a_prompt(explanation: str, of_one_text: list[str]) -> None:
    """Lines outside the fence are those of the template, whatever the explanation says."""
    tame = simulate("x", ["y"] * len(of_one_text)).text
    wild = simulate(explanation, of_one_text).text
    assert wild.count("\n") == tame.count("\n")
    assert wild.count("</tokens>") == tame.count("</tokens>")
    assert [w for w in wild.split("\n") if w.startswith("<")] == ["<tokens>", "</tokens>"]
    detect = [flags("detect", text, [], marked=False).text for text in ("x", explanation)]
    assert detect[0].count("\n") == detect[1].count("\n")


def simulate(explanation: str, tokens: list[str]) -> Prompt:
    return BUILT_IN["simulate"].fill(
        explanation=explanation, count=len(tokens), tokens=fenced_tokens(tokens)
    )


def flags(name: str, explanation: str, contexts: list[Context], *, marked: bool) -> Prompt:
    shown = fenced_texts(contexts, marked=marked)
    return BUILT_IN[name].fill(explanation=explanation, count=len(contexts), texts=shown)


def test_every_prompt_fills() -> None:
    for name, template in BUILT_IN.items():
        prompt = template.fill(**{key: f"<{key}>" for key in template.placeholders})
        assert (prompt.name, prompt.version) == (name, template.version)
        assert "{{" not in prompt.text
        assert not prompt.text.startswith("version")
    fuzz = flags("fuzz", "animals", CONTEXTS, marked=True).text
    assert "1: once <<upon>> a time\n2: <<the>> end&#xa;\n" in fuzz
    detect = flags("detect", "animals & <b>\n", CONTEXTS, marked=False).text
    assert "1: once upon a time\n" in detect
    assert "fire on: animals &amp; &lt;b&gt;&#xa;" in detect
    assert "a list of 2 digits" in detect
    assert "<tokens>\n1: a\n2:  cat\n</tokens>" in simulate("animals", ["a", " cat"]).text


def test_every_prompt_is_used_and_can_be_overridden() -> None:
    used = {"label", "explain", *(score.prompt for score in SCORES.values())}
    assert set(BUILT_IN) == used, "judge/prompts against judge.scores: SCORES"
    assert set(BUILT_IN) == set(get_args(PromptName)), "params/judge.py: PromptName"


@pytest.mark.parametrize(
    "template,values,message",
    [
        ("hello", {}, "must start with `version: N`"),
        ("version: 0\n\nhello", {}, "must start with"),
        ("version: one\n\nhello", {}, "must start with"),
        ("version: 1\nhello", {}, "must start with"),
        ("version: 1\n\n{{a}} {{b}}", {"a": "x"}, r"placeholders for \['a', 'b'\], must have"),
        ("version: 1\n\n{{a}}", {"a": "x", "b": "y"}, r"must have \['a', 'b'\]; make them"),
        ("version: 1\n\n{{a}} {{ b }}", {"a": "x"}, "that is no placeholder"),
        ("version: 1\n\n{{a}} }}", {"a": "x"}, "that is no placeholder"),
    ],
)
def test_a_template_that_doesnt_fit_is_named(
    template: str, values: dict[str, str | int], message: str
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        Template.parse("label", template, "my/label.md").fill(**values)
    assert str(caught.value).startswith("my/label.md: ")


def test_a_value_that_looks_like_a_placeholder_stays_one() -> None:
    template = Template.parse("x", "version: 3\n\n{{a}}|{{b}}|{{a}}", "x.md")
    prompt = template.fill(a="{{b}}", b=fenced_tokens(["{{a}}"]))
    assert prompt == Prompt("x", 3, "{{b}}|<tokens>\n1: {{a}}\n</tokens>|{{b}}")


def own_label(folder: Path, text: str) -> Judge:
    """Settings with a study's own wording of the prompt `label`."""
    (folder / "my").mkdir(exist_ok=True)
    path = folder / "my/label.md"
    path.write_text(text)
    return Judge(prompts={"label": PromptFile(path="my/label.md", sha256=sha256_file(path))})


def test_a_study_overrides_the_wording_of_a_prompt(tmp_path: Path) -> None:
    settings = own_label(tmp_path, "version: 7\n\nSay what these share:\n{{texts}}\n")
    prompts = load_prompts(settings, tmp_path)
    assert prompts["label"].fill(texts="x") == Prompt("label", 7, "Say what these share:\nx")
    assert {name: prompts[name] for name in BUILT_IN if name != "label"} == {
        name: template for name, template in BUILT_IN.items() if name != "label"
    }


@pytest.mark.parametrize(
    "text,message",
    [
        ("Say what these share: {{texts}}", "must start with `version: N`"),
        (
            "version: 2\n\nSay what these share.",
            r"has placeholders for \[\], must have \['texts'\]",
        ),
        ("version: 2\n\n{{texts}} {{count}}", r"must have \['texts'\]"),
        ("version: 2\n\n{{texts}} {{ count }}", "that is no placeholder"),
    ],
)
def test_an_override_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    settings = own_label(tmp_path, text)
    with pytest.raises(StudyError, match=message) as caught:
        load_prompts(settings, tmp_path)
    assert str(tmp_path / "my/label.md") in str(caught.value)


def test_an_override_that_has_changed_or_is_missing_is_named(tmp_path: Path) -> None:
    settings = own_label(tmp_path, "version: 2\n\n{{texts}}")
    path = tmp_path / "my/label.md"
    path.write_text("version: 2\n\n{{texts}}!")
    with pytest.raises(StudyError, match=r"label\.md has changed: .* `sae-repro pin`"):
        load_prompts(settings, tmp_path)
    path.unlink()
    with pytest.raises(StudyError, match=r"judge\.prompts\.label\.path: .* is missing"):
        load_prompts(settings, tmp_path)


def test_check_and_pin_know_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "label.md"

    def write_study(text: str) -> None:
        path.write_text(text)
        own = {"label": {"path": "label.md", "sha256": sha256_file(path)}}
        with (tmp_path / "params.yaml").open("w") as file:
            YAML().dump({**STUDY, "judge": {"prompts": own}}, file)

    def message(command: str) -> str:
        result = CliRunner().invoke(app, [command, str(tmp_path)])
        return result.output if result.exit_code == 0 else str(result.exception)

    write_study("version: 2\n\n{{text}}")
    assert message("check") == (
        f"{path}: has placeholders for ['text'], must have ['texts']; make them the same"
    )
    write_study("version: 2\n\n{{texts}}")
    assert message("check").startswith("ok")
    path.write_text("version: 3\n\n{{texts}}")
    assert f"judge.prompts.label.path: {path} has changed" in message("check")
    assert f"→ {sha256_file(path)}" in message("pin")
    assert message("check").startswith("ok")


def test_prompts_are_installed(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    names = zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]).namelist()
    packaged = {n for n in names if n.startswith("sae_repro/judge/prompts/")}
    assert {n for n in packaged if n.endswith(".md")} == {
        f"sae_repro/judge/prompts/{name}.md" for name in BUILT_IN
    }
