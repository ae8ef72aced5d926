"""Damaged SAE folders, of all formats: read, or refused in one line; never a traceback."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_repro.autoencoders import SAE, Weights, load, save
from sae_repro.autoencoders.interchange import export, import_sae
from sae_repro.contents import seal
from sae_repro.errors import StudyError

from ..damage import ALL, damage, mutants

D, K = 4, 8


def topk() -> SAE:
    rows = torch.nn.functional.normalize(torch.arange(1.0, 1 + K * D).reshape(K, D), dim=1)
    weights = Weights(rows.T.contiguous(), torch.zeros(K), rows, torch.zeros(D))
    return SAE("topk", weights, k=2)


def own(folder: Path) -> None:
    folder.mkdir()
    save(topk(), folder)


def gemma_scope(folder: Path) -> None:
    folder.mkdir()
    w = topk().weights
    np.savez(folder / "params.npz", W_enc=w.W_enc, W_dec=w.W_dec, b_enc=w.b_enc, b_dec=w.b_dec,
             threshold=np.ones(K, dtype=np.float32))  # fmt: skip


WRITERS: dict[str, Callable[[Path], None]] = {
    "own": own,
    "saelens": lambda folder: export(topk(), folder, "saelens"),
    "dictionary_learning": lambda folder: export(topk(), folder, "dictionary_learning"),
    "sparsify": lambda folder: export(topk(), folder, "sparsify"),
    "gemma_scope": gemma_scope,
}
ODD = {"a list": b"[]", "a number": b"0", "nested": b"[" * 100_000, "utf-16": b"\xff\xfe{\x00"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_read_or_named(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    WRITERS[name](folder)
    read = load if name == "own" else import_sae
    assert read(folder).d_sae == K
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for kind in (*ALL, *ODD):
            if kind in ODD:
                path.write_bytes(ODD[kind])
            elif not damage(path, kind):
                continue
            try:
                read(folder)
            except StudyError as error:
                assert str(folder) in str(error), (path, kind)
                assert "\n" not in str(error), (path, kind)
                assert "dvc repro" not in str(error), (path, kind)
            else:
                # a value is as good as another, where nobody has written down its hash
                assert kind in ("flip", "digit", "zeros"), (path, kind)
            path.write_bytes(content)


@pytest.mark.parametrize("name", WRITERS)
def test_whatever_becomes_of_a_file_there_is_one_line_at_most(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    WRITERS[name](folder)
    read = load if name == "own" else import_sae
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for mutant in mutants(content, 200, f"{name} {path.name}"):
            path.write_bytes(mutant)
            try:
                read(folder)
            except StudyError as error:
                assert str(folder) in str(error) and "\n" not in str(error)
        path.write_bytes(content)


def test_an_archive_of_another_version_is_named(tmp_path: Path) -> None:
    """zipfile raises another error for each of what it can't do: a version, a cipher, a method."""
    folder = tmp_path / "sae"
    gemma_scope(folder)
    path = folder / "params.npz"
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")
    for place, value in ((6, 145), (8, 1), (10, 99)):
        path.write_bytes(content[: entry + place] + bytes([value]) + content[entry + place + 1 :])
        with pytest.raises(StudyError, match=r"params\.npz: damaged"):
            import_sae(folder)


def test_in_a_sealed_folder_no_changed_bit_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    own(folder)
    seal(folder)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for kind in ALL:
            if path.name == "contents.json" and kind == "delete":
                continue
            assert damage(path, kind)
            with pytest.raises(StudyError, match=str(folder)):
                load(folder)
            path.write_bytes(content)
