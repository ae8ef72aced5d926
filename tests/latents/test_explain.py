"""`sae-repro explain`: the latents on a text, their names, the terminal and the page."""

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sae_repro.autoencoders import load
from sae_repro.cli import app
from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.files import read_json, write_json
from sae_repro.latents import activations_of
from sae_repro.latents.explanation import Active, Explanation, Profile, explain
from sae_repro.latents.explanation_page import page_of
from sae_repro.latents.of_cell import CellSAE, sae_name
from sae_repro.latents.reading import TextReader
from sae_repro.params import load as load_study

from .conftest import CELL, CONTEXT, HOOK, WORDS

TEXT = " ".join(WORDS[i % 18] for i in (0, 5, 5, 3, 9, 1, 2, 7, 7, 0, 4, 11, 12, 13, 3))


def opened(study: Path, name: str = CELL) -> tuple[CellSAE, TextReader]:
    cell = CellSAE.of(study, load_study(study / "params.yaml").cells, name)
    return cell, TextReader.of(study, cell.hook)


def test_profiles_are_the_latents_with_the_largest_means(small_study: Path) -> None:
    assert len(TEXT.split()) > CONTEXT  # two rows
    found = explain(*opened(small_study), TEXT, top=6)
    tokens, x_td = activations_of(TEXT, small_study, hook=HOOK)
    z_tk = load(small_study / f"artifacts/train/{CELL}/seed-0").encode(x_td).double().numpy()
    assert found.tokens == tokens == TEXT.split()
    order = np.argsort(-z_tk.mean(axis=0), kind="stable")[:6]
    assert [profile.latent for profile in found.profiles] == order.tolist()
    for profile in found.profiles:
        np.testing.assert_allclose(profile.z_t, z_tk[:, profile.latent], rtol=1e-5, atol=1e-6)
        assert profile.mean == pytest.approx(z_tk[:, profile.latent].mean())
        assert profile.density == profile.latent / 100
        assert profile.places == np.flatnonzero(z_tk[:, profile.latent]).tolist()
    for t, strongest in enumerate(found.strongest):
        assert [each.latent for each in strongest] == np.argsort(-z_tk[t])[:3].tolist()
    assert found.l0 == pytest.approx((z_tk > 0).sum(axis=1).mean())
    assert all(len(profile.places) > 1 for profile in found.shared)
    x = x_td.double().numpy()
    x_hat = load(small_study / f"artifacts/train/{CELL}/seed-0").decode(
        load(small_study / f"artifacts/train/{CELL}/seed-0").encode(x_td)
    )
    error = ((x - x_hat.double().numpy()) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    assert found.fvu == pytest.approx(error, rel=1e-5)


def test_names_are_the_first_of_label_concept_and_token(small_study: Path) -> None:
    cell, _ = opened(small_study)
    assert cell.names(range(1, 7)) == {
        1: "judged", 2: "noun?", 3: "verb", 4: r"on 'la\nrge'", 5: "explained", 6: "latent 6",
    }  # fmt: skip


def test_an_sae_without_evaluation_has_numbers_for_names(small_study: Path, tmp_path: Path) -> None:
    study = shutil.copytree(small_study, tmp_path / "study")
    for stage in ("evaluate", "judge"):
        shutil.rmtree(study / "artifacts" / stage)
    cell, reader = opened(study)
    assert cell.names([1]) == {1: "latent 1"}
    assert explain(cell, reader, TEXT).profiles[0].density is None


def test_tokens_that_extraction_leaves_out_have_no_latents(
    small_study: Path, tmp_path: Path
) -> None:
    study = shutil.copytree(small_study, tmp_path / "study")
    path = study / "artifacts/extract/manifest.json"
    _, x_td = activations_of(TEXT, small_study, hook=HOOK)
    norm_t = x_td.norm(dim=1)
    rule = {"norm_limit": 2.0, "medians": {HOOK: float(norm_t.median()) / 2}}
    write_json(path, read_json(path) | {"left_out": rule})
    seal(path.parent)
    found = explain(*opened(study), TEXT)
    assert found.kept == (norm_t <= norm_t.median()).tolist()
    assert 0 < sum(found.kept) < len(found.kept)
    for profile in found.profiles:
        assert not profile.z_t[~np.array(found.kept)].any()
    assert "left out, as in extraction" in page_of(found)


def test_names_of_cells(small_study: Path) -> None:
    cells = load_study(small_study / "params.yaml").cells
    assert sae_name(cells, CELL) == f"{CELL}/seed-0"
    assert sae_name(cells, f"{CELL}/seed-1") == f"{CELL}/seed-1"
    for near in ("topk-tow", "topk-two/seed-2"):
        with pytest.raises(StudyError, match="did you mean topk-two"):
            sae_name(cells, near)
    with pytest.raises(StudyError, match="not trained yet"):
        CellSAE.of(small_study, cells, "topk-untrained")


# the terminal


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_terminal_shows_what_looks_like_markup(small_study: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("[red] a <script> b")
    page = tmp_path / "page.html"
    output = run("--file", str(file), "--cell", CELL, "--study", str(small_study), "--top", "3",
                 "--html", str(page))  # fmt: skip
    assert "mean over the text: " in output and "[red]" in output and "<script>" in output
    assert f"{CELL}/seed-0" in output
    assert "<script>" not in page.read_text() and "&lt;script&gt;" in page.read_text()
    assert (
        output.replace(str(page), "")
        == run("[red] a <script> b", "--cell", CELL, "--study", str(small_study), "--top", "3")
        + "\nwrote \n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--cell", "topk-tow"], "did you mean topk-two"),
        (["a", "--cell", "topk-untrained"], "not trained yet"),
        (["--cell", CELL], "either a text in quotes or --file"),
        (["a", "--file", "b", "--cell", CELL], "either a text in quotes or --file"),
        (["--file", "nowhere.txt", "--cell", CELL], "no such file"),
        ([" ", "--cell", CELL], "no token in it"),
        (["a " * 5000, "--cell", CELL], r"5,000 tokens; give a part"),
    ],
)
def test_faults_are_named_before_a_model_is_loaded(
    small_study: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("sae_repro.latents.reading.load_for", _never)
    with pytest.raises(StudyError, match=says):
        run(*arguments, "--study", str(small_study))


def _never(*_: object) -> None:
    raise AssertionError("a model was loaded")


def test_means_over_documents_have_no_tokens_to_explain(small_study: Path, tmp_path: Path) -> None:
    study = shutil.copytree(small_study, tmp_path / "study")
    path = study / "artifacts/extract/manifest.json"
    write_json(path, read_json(path) | {"pooling": "document_mean"})
    seal(path.parent)
    with pytest.raises(StudyError, match="pooling = document_mean"):
        run("a b", "--cell", CELL, "--study", str(study))


# the page


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


HOSTILE = ["<script>alert(1)</script>", "</style><b>", "\u202eevil", "\U0001f600", "\ud800",
           '"onx=1 ', "a" * 10_000, "שלום", "{{ it }}", "\x1b[2K", "\n"]  # fmt: skip


def hostile(spell: Callable[[str], str]) -> Explanation:
    tokens = list(map(spell, HOSTILE))
    z_t = np.arange(1.0, len(tokens) + 1)
    profiles = [Profile(i, name, z_t, 1.0, 0.5) for i, name in enumerate(tokens)]
    strongest = [[Active(0, name, 1.0)] for name in tokens]
    return Explanation("cell", HOOK, 9, tokens, [True] * len(tokens), 1.0, 0.1, profiles, strongest)


def test_no_text_is_a_tag_or_turns_the_direction() -> None:
    page = page_of(hostile(str))
    found, plain = Tags(page), Tags(page_of(hostile(lambda _: "word")))
    assert found.tags == plain.tags and "script" not in found.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in plain.attributes]
    page.encode("utf-8")
    for character in "\u202e\x1b":
        assert character not in page
    assert "שלום" in page and "{{ it }}".replace(" ", "␣") in page
    assert not {"src", "href"} & {name for name, _ in found.attributes}
