"""Training from a rolling buffer beside training from all activations: the same bits."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sae_repro.contents import seal
from sae_repro.errors import StudyError
from sae_repro.files import read_json, sha256_file, sha256_folder
from sae_repro.params import load
from sae_repro.readers.shards import ActivationStore
from sae_repro.stage import ROLLING
from sae_repro.train import rounds
from sae_repro.train.job import CellJob

from .conftest import Checkout, small_text
from .in_process import HOOKS, carry_out, study

FIRST, SECOND = HOOKS
CELLS: dict[str, Any] = {
    "topk": {"expansion": 4, "activation": "topk", "k": 3, "seeds": [0, 1]},
    "short": {"expansion": 2, "activation": "batchtopk", "k": 3, "tokens": 448},
    "resample": {"expansion": 4, "penalty": "l1", "lambda": 1.0, "revival": "resample",
                 "resample_every": 5, "resample_tokens": 100, "lr": 1e-2},
    "transcoder": {"expansion": 2, "activation": "topk", "k": 3, "target_hook": SECOND},
    "crosscoder": {"expansion": 2, "activation": "topk", "k": 3, "hooks": [FIRST, SECOND]},
    "pca": {"baseline": "pca"},
    "untrained": {"baseline": "untrained", "expansion": 4, "activation": "topk", "k": 3},
}  # fmt: skip
BEFORE = ("corpus", "subject", "extract")
KEPT = ("train", "evaluate")


def begun(folder: Path, patch: pytest.MonkeyPatch, **extract: Any) -> dict[str, Any]:
    """params.yaml of a study in `folder`, which is the working folder now."""
    folder.mkdir()
    patch.chdir(folder)
    patch.setenv("SAE_REPRO_JOBS", "1")
    declared = study(small_text(folder / "text.jsonl"), shard_rows=256, norm_limit=2, **extract)
    declared["train"]["epochs"] = 2
    declared["evaluate"]["metrics"] = ["monosemanticity"]
    declared["evaluate"]["references"] = [4]
    declared |= {"cells": CELLS}
    with Path("params.yaml").open("w") as file:
        YAML().dump(declared, file)
    return declared


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of what a study gives that keeps all rounds."""
    with pytest.MonkeyPatch.context() as patch:
        declared = begun(tmp_path_factory.mktemp("rolling") / "whole", patch, buffer=512)
        carry_out(declared, *BEFORE, "train", "evaluate")
        assert len(ActivationStore(Path("artifacts/extract")).index("train").rounds) == 4
        revivals = Path("artifacts/train/resample/revival.jsonl").read_text()
        assert re.search('"revived":[1-9]', revivals)
        return results()


def results() -> dict[str, str]:
    hashes = {name: sha256_folder(Path("artifacts") / name) for name in KEPT}
    return {**hashes, "manifest": sha256_file(Path("artifacts/extract/manifest.json"))}


def test_a_rolling_buffer_gives_the_same_bits(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every kind of cell, over two epochs; on the disk there are two rounds at most."""
    declared = begun(tmp_path / "rolling", monkeypatch, buffer=512, keep="buffer")
    carry_out(declared, *BEFORE)
    store = ActivationStore(Path("artifacts/extract"))
    entries = [*store.activations(FIRST, "train").entries, *store.index("train").entries]
    assert {e["round"] for e in entries} == {0, 1, 2, 3}
    assert all(Path(store.folder, e["file"]).exists() == (e["round"] == 0) for e in entries)
    with pytest.raises(StudyError, match="of round 2 of 4 of the training activations"):
        store.activations(FIRST, "train").whole()

    on_disk = []
    side_by_side = rounds.side_by_side

    def watched(*arguments: Any, **rest: Any) -> Any:
        on_disk.append({path.name for path in ROLLING.glob("index/train/*.npy")})
        return side_by_side(*arguments, **rest)

    monkeypatch.setattr(rounds, "side_by_side", watched)
    carry_out(declared, "train", "evaluate")
    first, *others = on_disk
    assert len(on_disk) == 8  # of two epochs
    assert not first
    assert all(len(names) <= 2 for names in others)
    assert not ROLLING.exists()
    assert results() == whole


def test_a_stopped_training_goes_on_in_its_round(
    whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds that all cells are through with are not extracted again."""
    declared = begun(tmp_path / "stopped", monkeypatch, buffer=512, keep="buffer")
    carry_out(declared, *BEFORE)
    extracted = []
    extract_again = rounds._extract_again

    def noted(stop: int | None) -> Callable[[int, int], None]:
        def call(number: int, of: int) -> None:
            extracted.append(number)
            if len(extracted) == stop:
                raise KeyboardInterrupt
            extract_again(number, of)

        return call

    monkeypatch.setattr(rounds, "_extract_again", noted(stop=3))
    with pytest.raises(KeyboardInterrupt):
        carry_out(declared, "train")
    assert extracted == [1, 2, 3]
    monkeypatch.setattr(rounds, "_extract_again", noted(stop=None))
    carry_out(declared, "train", "evaluate")
    assert extracted == [1, 2, 3, 3, 1, 2, 3]
    assert results() == whole


def test_other_bits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is extracted again must be what the manifest has the checksums of."""
    declared = begun(tmp_path / "other", monkeypatch, buffer=1024, keep="buffer")
    carry_out(declared, *BEFORE)
    path = Path("artifacts/extract/manifest.json")
    last = read_json(path)["hooks"][FIRST]["shards"]["train"][-1]["sha256"]
    path.write_text(path.read_text().replace(last, "0" * 64))
    seal(path.parent)
    with pytest.raises(StudyError, match="round 2 of 2: could not be extracted"):
        carry_out(declared, "train")
    said = capfd.readouterr().err
    assert "train: round 2 of 2 of the activations" in said
    assert f"{FIRST}: round 2 of 2 of the training activations came out with other bits" in said


def extracted_again(
    number: int, parent: int, limit: int = resource.RLIM_INFINITY
) -> "subprocess.CompletedProcess[str]":
    """Its process, when it has ended; no file can grow beyond `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "sae_repro.extract.again", str(number), str(parent)],
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def test_rounds_are_as_long_as_they_were_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `buffer` of params.yaml is by then: the manifest has where they start."""
    declared = begun(tmp_path / "longer", monkeypatch, buffer=512, keep="buffer")
    carry_out(declared, *BEFORE)
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("buffer: 512", "buffer: 1024"))
    assert load("params.yaml").extract.buffer == 1024
    process = extracted_again(2, os.getpid())
    assert process.returncode == 0, process.stderr
    store = ActivationStore(Path("artifacts/extract"), ROLLING)
    for shards in (store.activations(FIRST, "train"), store.index("train")):
        numbers = [n for n, entry in enumerate(shards.entries) if entry["round"] == 2]
        assert sum(len(shards.load(number)) for number in numbers) == 512


def test_it_ends_with_what_trains_and_names_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan would put its round in place of that of the next run."""
    declared = begun(tmp_path / "alone", monkeypatch, buffer=1024, keep="buffer")
    carry_out(declared, *BEFORE)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert extracted_again(1, gone.pid).returncode == 1
    assert not ROLLING.exists()
    process = extracted_again(1, os.getpid(), limit=1000)
    assert process.returncode == 1 and not ROLLING.exists()
    assert "no room on its disk, or a limit is reached" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("extract", "named"),
    [
        ({"buffer": 500}, r"extract\.buffer = 500: must be a multiple of train\.batch_size = 64"),
        ({"keep": "buffer"}, "keep = buffer: write how many tokens a round has"),
        ({"buffer": 512, "pooling": "document_mean"}, "rounds are of tokens"),
    ],
)
def test_faults_are_named_before_any_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extract: dict[str, Any], named: str
) -> None:
    begun(tmp_path / "faulty", monkeypatch, **extract)
    with pytest.raises(StudyError, match=named):
        load("params.yaml")


CONFLICTS = {"SAE_REPRO_EXECUTOR": "ray", "SAE_REPRO_NO_STORE": "1"}


@pytest.mark.parametrize("name", CONFLICTS)
def test_rounds_are_of_this_machine_and_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The stage refuses before it makes a cell, of whatever kind."""
    declared = begun(tmp_path / "conflict", monkeypatch, buffer=1024, keep="buffer")
    carry_out(declared, *BEFORE)
    monkeypatch.setenv(name, CONFLICTS[name])
    monkeypatch.setattr(CellJob, "make", lambda *_: pytest.fail("a cell was made"))
    with pytest.raises(StudyError, match=rf"extract\.keep = buffer: .* unset {name}"):
        carry_out(declared, "train")
    assert not Path("artifacts/train").exists()


@pytest.mark.slow
def test_dvc_rolls_the_buffer_and_keeps_cells_that_are_there(
    fresh: Checkout, tmp_path: Path
) -> None:
    """As a user would: all rounds kept, then one, then one in a checkout that has no cells."""
    checkout = fresh.copy(tmp_path / "checkout")
    checkout.change("  shard_rows: 4_096\n", "  shard_rows: 4_096\n  buffer: 6_400\n")
    checkout.repro("evaluate")
    first = {name: sha256_folder(checkout.folder / "artifacts" / name) for name in KEPT}
    checkout.change("  buffer: 6_400\n", "  buffer: 6_400\n  keep: buffer\n")
    output = checkout.repro("evaluate")
    assert "extract" in checkout.ran(output) and "train: 3 unchanged of 3 SAEs" in output, output
    shutil.rmtree(checkout.folder / ".sae-repro")
    shutil.rmtree(checkout.folder / "artifacts/train")
    shutil.rmtree(checkout.folder / ".dvc/cache")
    for name, value in CONFLICTS.items():
        process = checkout.start("train", **{name: value})
        output, _ = process.communicate()
        assert process.returncode != 0
        assert "train: extract.keep = buffer: cells" in output and f"unset {name}" in output
        assert "Traceback" not in output and not (checkout.folder / "artifacts/train").exists()
    output = checkout.repro("evaluate")
    assert "train: round 2 of 4 of the activations" in output, output
    assert first == {name: sha256_folder(checkout.folder / "artifacts" / name) for name in KEPT}
