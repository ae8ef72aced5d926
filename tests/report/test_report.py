"""The stage: the page and the explorer's data of a small study, and of one with a hostile text."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_repro.contents import CONTENTS, seal
from sae_repro.files import read_json, sha256_folder, write_json

from ..pipeline.in_process import carry_out

Finished = tuple[Path, dict[str, Any]]
HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title></table>",
    '" onmouseover="alert(1)',
    "\u202eright to left\u2067",
    "\u2028\u2029 \U0001f9ea\u200d\U0001f680",
    "{{ 7 * 7 }}{% include 'style.css' %}",
    "]]><!-- --> &amp; &#60;",
    "x" * 10_000,
)


def data(path: Path) -> tuple[str, Any]:
    """(key, value) of a script of the explorer."""
    found = re.fullmatch(r"saeData\((\"[^\"]*\"),(.*)\);\n", path.read_text("ascii"), re.S)
    assert found is not None
    return json.loads(found[1]), json.loads(found[2])


class Structure(HTMLParser):
    """Tags with the names of their attributes, in order, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[Any] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, sorted(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Writes the reports of a copy of the study anew, after a change of its folder; its reports."""
    folder, declared = finished

    def go(change: Callable[[Path], None]) -> Path:
        copy = shutil.copytree(folder, tmp_path / "study")
        change(copy)
        shutil.rmtree(copy / "reports" / "explorer")
        (copy / "reports" / "index.html").unlink()
        monkeypatch.chdir(copy)
        carry_out(declared, "report")
        return copy / "reports"

    return go


def test_two_runs_write_the_same_bytes(finished: Finished, again: Callable[..., Path]) -> None:
    reports = again(lambda _: None)
    assert sha256_folder(reports) == sha256_folder(finished[0] / "reports")


def test_without_an_sae_to_show_the_explorer_is_one_page_that_says_so(
    finished: Finished, again: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(finished[1], "report", {"explorer": []})
    reports = again(lambda _: None)
    assert [path.name for path in (reports / "explorer").rglob("*")] == ["index.html"]
    said = " ".join(Structure((reports / "explorer" / "index.html").read_text("utf-8")).text)
    assert "report.explorer" in said
    page = (reports / "index.html").read_text("utf-8")
    assert 'href="explorer/' not in page


def test_the_explorer_holds_what_evaluation_measured(finished: Finished) -> None:
    folder, _ = finished
    explorer = folder / "reports" / "explorer" / "data"
    key, index = data(explorer / "index.js")
    assert key == "index"
    ids = [sae["id"] for sae in index["saes"]]
    assert ids == ["topk.seed-0", "topk.seed-1", "relu"]
    for sae in index["saes"]:
        evaluated = folder / "artifacts/evaluate" / sae["id"].replace(".", "/")
        latents = pd.read_parquet(evaluated / "latents.parquet")
        key, columns = data(explorer / sae["id"] / "latents.js")
        assert key == f"{sae['id']}/latents"
        assert {len(column) for column in columns.values()} == {sae["K"]} == {len(latents)}
        alive = latents["n_fired"].to_numpy() > 0
        assert columns["alive"] == alive.tolist()
        np.testing.assert_allclose(
            np.array(columns["max"], float)[alive], latents["max_activation"][alive], rtol=1e-3
        )
        entries = [
            entry
            for number in range(sae["chunks"])
            for entry in data(explorer / sae["id"] / f"contexts-{number}.js")[1]
        ]
        assert len(entries) == sae["K"]
        counted = [sum(e["histogram"]["counts"]) if e["histogram"] else 0 for e in entries]
        assert counted == latents["n_fired"].tolist()
        contexts = pd.read_parquet(evaluated / "contexts.parquet")
        for latent in np.flatnonzero(alive)[:5].tolist():
            top = contexts[(contexts["latent"] == latent) & (contexts["kind"] == "top")]
            shown = entries[latent]["quantiles"][0]
            assert shown["name"] == "largest"
            assert [c["token"] for c in shown["contexts"]] == top["token"].head(3).tolist()


def test_neighbours_and_partners_are_the_nearest_atoms(finished: Finished) -> None:
    from sae_repro.autoencoders import load

    folder, _ = finished
    atoms = {}
    alive = {}
    for seed in (0, 1):
        atoms_kd = load(folder / f"artifacts/train/topk/seed-{seed}").weights.W_dec.double().numpy()
        norm_k = np.linalg.norm(atoms_kd, axis=1, keepdims=True)
        atoms[seed] = atoms_kd / np.where(norm_k > 0, norm_k, 1)
        place = folder / f"artifacts/evaluate/topk/seed-{seed}/latents.parquet"
        alive[seed] = pd.read_parquet(place)["n_fired"].to_numpy() > 0
    _, columns = data(folder / "reports/explorer/data/topk.seed-0/latents.js")
    for k in np.flatnonzero(alive[0]).tolist():
        own_j = np.where(alive[0], atoms[0] @ atoms[0][k], -2)
        own_j[k] = -2
        expected = np.sort(own_j[own_j > -2])[::-1][:3]
        assert [c for _, c in columns["neighbours"][k]] == pytest.approx(expected, abs=1e-3)
        other_j = np.where(alive[1], atoms[1] @ atoms[0][k], -2)
        partner, cosine = columns["partner"][k]["topk.seed-1"]
        assert cosine == pytest.approx(other_j.max(), abs=1e-3)
        assert other_j[partner] == pytest.approx(other_j.max(), abs=1e-6)


def test_shades_are_other_tokens_that_activate_the_latent(finished: Finished) -> None:
    folder, _ = finished
    data_folder = folder / "reports/explorer/data/relu"
    shaded = [0, 0]
    for path in data_folder.glob("contexts-*.js"):
        for entry in data(path)[1]:
            for context in (c for group in entry["quantiles"] for c in group["contexts"]):
                text = f"{context['before']}{context['token']}{context['after']}"
                text = text.encode("utf-16-le")
                own = len(context["before"].encode("utf-16-le")) // 2
                for start, end, activation in context.get("shade", []):
                    assert 0 <= start < end <= len(text) // 2 and activation > 0
                    assert end <= own or start >= own
                    shaded[start >= own] += 1
    # before the peak and after it
    assert min(shaded) > 10


def test_the_page_is_one_file_and_says_where_numbers_come_from(finished: Finished) -> None:
    folder, _ = finished
    page = (folder / "reports/index.html").read_text("utf-8")
    structure = Structure(page)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    # a script of text's making would stand between those that are ours, at the end
    assert structure.tags.count(("script", [])) == page.count("<script>") == 2
    found = re.search(r"^const origins = (.*);$", page, re.M)
    assert found is not None
    origins = json.loads(found[1])
    assert origins.keys() == {"topk", "relu"}
    for cell, origin in origins.items():
        measured = read_json(folder / f"artifacts/evaluate/{cell}/metrics.json")["key"]
        keys = measured if isinstance(measured, list) else [measured]
        assert origin["keys"] == [key[:12] for key in keys]
        checksum = read_json(folder / f"artifacts/evaluate/{cell}" / CONTENTS)["sha256"]
        assert origin["artifact"] == checksum[:12]
    trained = read_json(folder / "artifacts/train/topk/seed-1/train.json")["key"]
    assert origins["topk"]["trained"][1] == trained[:12]
    for cells in re.findall(r"data-cells=\"([^\"]*)", page):
        assert set(cells.split()) <= origins.keys()
    for source in set(re.findall(r"data-source=\"([^\"]*)", page)):
        assert (folder / source).is_file(), source
    for link in re.findall(r"href=\"((?:figures|tables)/[^\"#]+)", page):
        assert (folder / "reports" / link).is_file(), link
    for anchor in re.findall(r"href=\"#([^\"]+)", page):
        assert f'id="{anchor}"' in page


def test_a_hostile_text_changes_nothing_but_text(
    finished: Finished, again: Callable[..., Path]
) -> None:
    """Every string of the text's, and the judge's, is replaced in the artifacts."""
    benign = again(lambda study: replace_text(study, lambda n: f"word{n}"))
    plain = Structure((benign / "index.html").read_text("utf-8"))
    replace_text(benign.parent, lambda n: f"{HOSTILE[n % len(HOSTILE)]}{n}")
    carry_out(finished[1], "report")
    page = (benign / "index.html").read_text("utf-8")
    hostile = Structure(page)
    assert hostile.tags == plain.tags
    text = "".join(hostile.text)
    assert any(words in text for words in HOSTILE)
    for path in (benign / "explorer" / "data").rglob("*.js"):
        written = path.read_bytes()
        assert not re.search(rb"[<>&\x00-\x09\x0b-\x1f\x7f-\xff]", written), path
        data(path)


def replace_text(study: Path, words: Callable[[int], str]) -> None:
    """Put `words` of a number in place of each text in what evaluation and the judge wrote."""
    for path in sorted((study / "artifacts/evaluate").rglob("*.parquet")):
        if path.stem not in ("contexts", "monosemantic", "concepts", "pairs"):
            continue
        frame = pd.read_parquet(path)
        for column in ("token", "context_before", "context_after", "concept", "parent", "child"):
            if column in frame:
                known = frame[column].notna().to_numpy()
                new = pd.Series([words(n) for n in range(len(frame))], index=frame.index)
                frame[column] = new.where(known)
        frame.to_parquet(path, index=False)
        seal(path.parent)
        seal(path.parent.parent)
    seal(study / "artifacts/evaluate")
    for path in sorted((study / "artifacts/judge").rglob("*.json")):
        if path.name == CONTENTS:
            continue
        judged = read_json(path)
        judged["labels"] = {k: words(int(k)) for k in judged.get("labels", {})}
        for explained in judged.get("explained", []):
            explained["explanation"] = words(explained["latent"])
        write_json(path, judged)
    seal(study / "artifacts/judge")
