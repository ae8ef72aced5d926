"""Prompts: strict templates, and texts that can't get out of their fence."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sae_repro.errors import StudyError
from sae_repro.judge import Context, Prompt
from sae_repro.judge import prompts as t
from sae_repro.judge.contexts import escape, texts, tokens
from sae_repro.judge.prompts import fill, fill_text

ROOT = Path(__file__).resolve().parents[2]
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
def test_nothing_gets_out_of_a_fence(contexts: list[Context]) -> None:
    lines = texts(contexts, marked=True).splitlines()
    assert lines[0] == "<texts>"
    assert lines[-1] == "</texts>"
    assert len(lines) == len(contexts) + 2
    for i, (line, context) in enumerate(zip(lines[1:-1], contexts, strict=True), start=1):
        number, before, token, after = re.fullmatch(
            r"([0-9]+): ([^<>]*)<<([^<>]*)>>([^<>]*)", line
        ).groups()  # type: ignore[union-attr]
        assert int(number) == i
        found = Context(unescape(before), unescape(token), unescape(after))
        assert found == context
    bare = texts(contexts, marked=False).splitlines()
    assert len(bare) == len(contexts) + 2
    assert not any(set(line) & set("<>") for line in bare[1:-1])


@given(HOSTILE, st.lists(HOSTILE, min_size=1, max_size=4))
def test_no_text_changes_the_shape_of_a_prompt(explanation: str, of_one_text: list[str]) -> None:
    """Lines outside the fence are those of the template, whatever the explanation says."""
    tame = t.simulate("x", ["y"] * len(of_one_text)).text
    wild = t.simulate(explanation, of_one_text).text
    assert wild.count("\n") == tame.count("\n")
    assert wild.count("</tokens>") == tame.count("</tokens>")
    assert [w for w in wild.split("\n") if w.startswith("<")] == ["<tokens>", "</tokens>"]
    assert t.detect(explanation, []).text.count("\n") == t.detect("x", []).text.count("\n")


def filled() -> list[Prompt]:
    return [
        t.label(CONTEXTS),
        t.explain(CONTEXTS),
        t.detect("animals", CONTEXTS),
        t.fuzz("animals", CONTEXTS),
        t.simulate("animals", ["a", " cat"]),
        t.specificity("animals", CONTEXTS[0]),
    ]


def test_every_prompt_fills() -> None:
    assert tuple(p.name for p in filled()) == t.NAMES
    for prompt in filled():
        assert prompt.version >= 1
        assert "{{" not in prompt.text
        assert not prompt.text.startswith("version")
    assert "1: once <<upon>> a time\n2: <<the>> end&#xa;\n" in t.fuzz("animals", CONTEXTS).text
    detect = t.detect("animals & <b>\n", CONTEXTS).text
    assert "1: once upon a time\n" in detect
    assert "fire on: animals &amp; &lt;b&gt;&#xa;" in detect
    assert "a list of 2 digits" in detect
    assert "<tokens>\n1: a\n2:  cat\n</tokens>" in t.simulate("animals", ["a", " cat"]).text


def test_the_files_are_the_prompts() -> None:
    folder = ROOT / "src/sae_repro/judge/prompts"
    assert {p.name for p in folder.iterdir()} == {f"{name}.md" for name in t.NAMES}


@pytest.mark.parametrize(
    "template,values,message",
    [
        ("hello", {}, "must start with `version: N`"),
        ("version: 0\n\nhello", {}, "must start with"),
        ("version: one\n\nhello", {}, "must start with"),
        ("version: 1\nhello", {}, "must start with"),
        ("version: 1\n\n{{a}} {{b}}", {"a": "x"}, r"placeholders for \['a', 'b'\], is given"),
        ("version: 1\n\n{{a}}", {"a": "x", "b": "y"}, r"is given \['a', 'b'\]; make them"),
        ("version: 1\n\n{{a}} {{ b }}", {"a": "x"}, "that is no placeholder"),
        ("version: 1\n\n{{a}} }}", {"a": "x"}, "that is no placeholder"),
    ],
)
def test_a_template_that_doesnt_fit_is_named(
    template: str, values: dict[str, str | int], message: str
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        fill_text("label", template, **values)
    assert "src/sae_repro/judge/prompts/label.md: " in str(caught.value)


def test_a_value_that_looks_like_a_placeholder_stays_one() -> None:
    prompt = fill_text("x", "version: 3\n\n{{a}}|{{b}}|{{a}}", a="{{b}}", b=tokens(["{{a}}"]))
    assert prompt == Prompt("x", 3, "{{b}}|<tokens>\n1: {{a}}\n</tokens>|{{b}}")
    with pytest.raises(StudyError):
        fill("label", wrong="x")


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
    found = {n for n in names if n.startswith("sae_repro/judge/prompts/")}
    assert found == {f"sae_repro/judge/prompts/{name}.md" for name in t.NAMES}
