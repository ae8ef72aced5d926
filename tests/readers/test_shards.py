"""Activation shards: files that numpy itself could have written, damage that is named."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.readers.shards import ActivationStore, RowFile, row_key

HOOK = "blocks.0.hook_resid_post"


@pytest.mark.parametrize("dtype", [np.int32, np.float16, np.float32, np.bool_, np.uint8])
@pytest.mark.parametrize(("width", "flat"), [(1, True), (1, False), (64, False)])
@pytest.mark.parametrize("sizes", [(), (1,), (3, 0, 7), (1000, 1)])
def test_a_row_file_has_the_bytes_that_numpy_saves(
    tmp_path: Path, dtype: type, width: int, flat: bool, sizes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2, (n, width)).astype(dtype) for n in sizes]
    file = RowFile(tmp_path / "folder" / "rows.npy", width, dtype)
    for part in parts:
        file.append(part)
    file.close(flat=flat)
    whole = np.concatenate([np.empty((0, width), dtype), *parts])
    expected = io.BytesIO()
    np.save(expected, whole[:, 0] if flat else whole)
    assert (tmp_path / "folder" / "rows.npy").read_bytes() == expected.getvalue()


def test_a_header_has_room_for_any_number_of_rows(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.npy", 4096, np.float32)
    file.rows = 10**18
    file.close()
    assert b"(1000000000000000000, 4096)" in (tmp_path / "rows.npy").read_bytes()


def test_batches_cross_no_shard_and_hold_every_row_once(make_store: Callable[..., Path]) -> None:
    store = ActivationStore(make_store(validation=1024, shard_rows=500))
    shards = store.activations(HOOK, "validation")
    batches = list(shards.batches(200))
    assert [len(batch) for batch in batches] == [200, 200, 100, 200, 200, 100, 24]
    assert np.array_equal(np.concatenate(batches), shards.whole())
    assert shards.rows == 1024


def test_a_damaged_and_a_missing_shard_are_named(make_store: Callable[..., Path]) -> None:
    shards = ActivationStore(make_store()).activations(HOOK, "validation")
    path = shards.folder / shards.entries[0]["file"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StudyError, match=f"{path}: damaged"):
        shards.load(0)
    path.unlink()
    with pytest.raises(StudyError, match=f"{path}: missing"):
        shards.load(0)


def test_a_shard_is_read_for_its_checksum_once_while_it_stays_as_it_was(
    make_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = make_store(), []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    monkeypatch.setattr("sae_repro.readers.shards.sha256_file", counted)
    for _ in range(3):  # stores of several cells
        shards = ActivationStore(folder).activations(HOOK, "validation")
        shards.load(0)
    path = shards.folder / shards.entries[0]["file"]
    assert read == [path]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, 0))  # another time, however coarse the clock is
    with pytest.raises(StudyError, match=f"{path}: damaged"):
        shards.load(0)


def test_a_hook_that_was_not_extracted_is_named(make_store: Callable[..., Path]) -> None:
    with pytest.raises(StudyError, match=f"other: not extracted; artifacts/extract has {HOOK}"):
        ActivationStore(make_store()).d_in("other")


def test_keys_are_in_the_order_of_document_and_position() -> None:
    document, position = np.array([0, 0, 1, 2**30]), np.array([0, 2**31, 0, 5])
    key = row_key(document, position)
    assert (np.diff(key) > 0).all()
