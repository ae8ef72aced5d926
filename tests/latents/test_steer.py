"""`sae-repro steer`: both texts, and faults that are named before anything is written."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sae_repro.cli import app
from sae_repro.errors import StudyError
from sae_repro.latents.steered_text import Sampling, steered_text
from sae_repro.readers.subject import load_subject
from sae_repro.steering import Intervention

from .conftest import CELL, CONTEXT
from .test_explain import _never, opened

PROMPT = "a f b"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["steer", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_both_texts_are_the_models_and_a_latent_raised_by_0_changes_nothing(
    small_study: Path,
) -> None:
    cell, reader = opened(small_study)
    for sampling in (Sampling(6), Sampling(6, temperature=1.0, seed=3)):
        same = steered_text(cell, reader, PROMPT, [Intervention(3, "add", 0.0)], sampling)
        assert same.steered == same.unsteered and same.kl == 0
        moved = steered_text(cell, reader, PROMPT, [Intervention(3, "clamp", 40.0)], sampling)
        assert moved.unsteered == same.unsteered != moved.steered and moved.kl > 0.01
        assert moved.positions == len((PROMPT + " " + moved.unsteered).split())
    subject = load_subject(small_study / "artifacts/subject")
    ids = [1, *reader.ids(PROMPT)]
    first = int(subject(torch.tensor([ids]))[0, -1].argmax())
    text = steered_text(cell, reader, PROMPT, [Intervention(3, "zero")], Sampling(1)).unsteered
    assert text == ("" if first == 1 else reader.text([first]))  # 1: end of text


def test_the_command_prints_both_texts_and_the_same_again(small_study: Path) -> None:
    arguments = [PROMPT, "--cell", f"{CELL}/seed-1", "--latent", "1=9", "--latent", "6=-2",
                 "--tokens", "5", "--temperature", "1", "--study", str(small_study)]  # fmt: skip
    output = run(*arguments)
    assert run(*arguments) == output
    lines = output.splitlines()
    assert lines[0].startswith(f"{CELL}/seed-1, blocks.1.hook_resid_post; temperature 1, seed 0")
    assert lines[1].startswith("1 judged: clamped to 9; on held-out tokens at most 5")
    assert any(line.startswith("6 latent 6: clamped to -2") for line in lines)
    assert sum(line.startswith("  output score ") for line in lines) == 2
    assert [line.split(":")[0] for line in lines[-4:]] == [
        "prompt", "unsteered", "steered", "KL(unsteered ‖ steered)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cell", "topk-tow", "--latent", "1=2"], "did you mean topk-two"),
        (["--cell", CELL, "--latent", "32=2"], r"this SAE has 0 … 31"),
        (["--cell", CELL, "--latent", "1=2", "--latent", "1=3"], "named twice"),
        (["--cell", CELL, "--latent", "1"], "with --mode clamp give N=VALUE"),
        (["--cell", CELL, "--latent", "x=1"], "with --mode clamp give N=VALUE"),
        (["--cell", CELL, "--latent", "1=nan"], "with --mode clamp give N=VALUE"),
        (["--cell", CELL, "--latent", "1=2", "--mode", "zero"], "with --mode zero give N, without"),
    ],
)
def test_faults_are_named_before_the_model_is_loaded(
    small_study: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("sae_repro.latents.reading.load_for", _never)
    with pytest.raises(StudyError, match=says):
        run(PROMPT, *arguments, "--study", str(small_study))


def test_texts_longer_than_the_models_context_are_refused(small_study: Path) -> None:
    at = ["--cell", CELL, "--latent", "1=2", "--study", str(small_study)]
    with pytest.raises(StudyError, match=rf"ask for at most {2 * CONTEXT - 4}"):
        run(PROMPT, *at, "--tokens", "30")
    with pytest.raises(StudyError, match="give a shorter one"):
        run("a " * 30, *at)


@pytest.mark.parametrize("command", [["steer", "--latent", "3=1", "--tokens", "1"], ["explain"]])
def test_words_that_the_tokenizer_lacks_are_said(small_study: Path, command: list[str]) -> None:
    for text, note in ((PROMPT, ""), ("a zebra b zebra", "note: 2 of 4 tokens are not in the")):
        arguments = [*command, text, "--cell", CELL, "--study", str(small_study)]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0
        assert done.stderr.startswith(note) and ("note:" in done.stderr) == bool(note)
