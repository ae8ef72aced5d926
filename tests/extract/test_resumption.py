"""An extraction killed anywhere and run again has the bits of one that was not."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_repro import files
from sae_repro.extract import extraction, resumption
from sae_repro.extract.extraction import Extraction, Inputs, extract
from sae_repro.extract.resumption import States, resumable_folder
from sae_repro.extract.rolling import RoundsSink
from sae_repro.extract.sinks import _Shard
from sae_repro.extract.state import read_state, write_state
from sae_repro.files import sha256_folder
from sae_repro.params import Extract
from sae_repro.readers.documents import TokenDocuments

SETTINGS = Extract(
    hooks=("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"), context=8, n_tokens=10_000,
    n_calibration_tokens=300, n_validation_tokens=300, batch_size=2, shard_rows=256, threads=1,
    norm_limit=2,
)  # fmt: skip

WHOLE: dict[str, str] = {}
"""By settings, the hash of what an extraction gives that nothing stops."""


def killed_at(event: int, what: str, run: Callable[[], Any], patch: pytest.MonkeyPatch) -> bool:
    """Run in a fork that SIGKILL ends at the `event`-th call of `what`; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = event

        def counted(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **rest: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **rest)

            return call

        owner, name = {
            "pass": (Extraction, "_take"),
            "round ended": (RoundsSink, "_end"),
            "file deleted": (Path, "unlink"),
            "state saved": (States, "save"),
            "shard written": (_Shard, "append"),
            "shard shuffled": (_Shard, "permute"),
            "shard listed": (_Shard, "entries"),
            "statistics": (extraction, "check_not_constant"),
            "folder finished": (resumption, "settle"),
            "folder moved": (files, "settle"),
            "folder named": (States, "drop"),
        }[what]
        patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            run()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.fixture
def inputs(subject: Any, corpus: TokenDocuments) -> Inputs:
    return Inputs(subject, corpus, {})


@pytest.fixture
def whole(inputs: Inputs, tmp_path: Path) -> Callable[[Extract], str]:
    def digest(settings: Extract) -> str:
        name = settings.model_dump_json()
        if name not in WHOLE:  # the corpus is the same for all tests
            states = States(tmp_path / "whole")
            extract(inputs, settings, seed=0, states=states)
            WHOLE[name] = sha256_folder(states.folder)
        return WHOLE[name]

    return digest


@pytest.mark.parametrize(
    "choice",
    [{"pooling": "token"}, {"pooling": "document_mean"}, {"buffer": 90},
     {"buffer": 90, "keep": "buffer"}, {"buffer": 5, "keep": "buffer"}],
)  # fmt: skip
def test_a_killed_extraction_goes_on_with_the_same_bits(
    inputs: Inputs, whole: Callable[[Extract], str], choice: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("sae_repro.extract.sinks.WAITING", 3000)
    settings = SETTINGS.model_copy(update={"shard_rows": 40, **choice})
    states = States(tmp_path / "resumed")

    def run() -> dict[str, str]:
        return extract(inputs, settings, seed=0, states=states)

    kills = [("pass", 3), ("pass", 9), ("shard written", 60), ("shard shuffled", 2),
             ("shard listed", 1), ("round ended", 1), ("file deleted", 2), ("round ended", 3),
             ("state saved", 5), ("file deleted", 9), ("pass", 12), ("statistics", 1)]  # fmt: skip
    killed = [killed_at(event, what, run, monkeypatch) for what, event in kills]
    assert sum(killed) >= 4
    capsys.readouterr()
    run()
    assert "goes on where it was stopped" in capsys.readouterr().out
    assert sha256_folder(states.folder) == whole(settings)


def test_half_a_shuffle_is_finished(
    inputs: Inputs, whole: Callable[[Extract], str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    states = States(tmp_path / "resumed")

    def run() -> dict[str, str]:
        return extract(inputs, SETTINGS, seed=0, states=states)

    unlink, count = Path.unlink, 0

    def dying(path: Path, *args: Any, **rest: Any) -> None:
        nonlocal count
        count += path.suffix == ".unordered"
        if count == 2:
            raise KeyboardInterrupt
        unlink(path, *args, **rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dying)
        run()
    run()
    assert sha256_folder(states.folder) == whole(SETTINGS)


DAMAGES = {
    "state cut short": "ValueError", "state of JSON": "ValueError", "boot": "restarted",
    "name": "another",
    "rows cut short": "shorter", "rows gone": "FileNotFoundError", "of other hooks": "KeyError",
}  # fmt: skip


def damage_to(damage: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    path = folder.with_name("resumed.state")
    rows = folder / "index/train/00000.npy"
    match damage:
        case "state cut short":
            path.write_bytes(path.read_bytes()[:-9])
        case "state of JSON":
            path.write_text('{"boot": ""}')
        case "boot":
            patch.setattr("sae_repro.extract.resumption._boot", lambda: "another")
        case "rows cut short":
            rows.write_bytes(rows.read_bytes()[:-1])
        case "rows gone":
            rows.unlink()
        case _:
            state = read_state(path)
            if damage == "name":
                state["name"] = "another"
            else:
                state["extraction"]["statistics"].popitem()
            write_state(path, state)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_not_be_trusted_starts_afresh(
    inputs: Inputs, whole: Callable[[Extract], str], damage: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    states = States(tmp_path / "resumed")

    def run() -> dict[str, str]:
        return extract(inputs, SETTINGS, seed=0, states=states)

    assert killed_at(1, "statistics", run, monkeypatch)
    damage_to(damage, states.folder, monkeypatch)
    run()
    said = capsys.readouterr()
    assert sha256_folder(states.folder) == whole(SETTINGS)
    assert "goes on" not in said.out
    assert "not usable; starting afresh" in said.err and DAMAGES[damage] in said.err


def test_a_file_that_is_cut_short_while_it_grows_is_noticed(
    inputs: Inputs, whole: Callable[[Extract], str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    settings = SETTINGS.model_copy(update={"shard_rows": 40})
    states = States(tmp_path / "resumed")

    def run() -> dict[str, str]:
        return extract(inputs, settings, seed=0, states=states)

    assert killed_at(9, "pass", run, monkeypatch)
    growing = states.folder / settings.hooks[0] / "train/00000.unordered"
    growing.write_bytes(growing.read_bytes()[:200])
    run()
    assert "shorter than it was" in capsys.readouterr().err
    assert sha256_folder(states.folder) == whole(settings)


@pytest.mark.parametrize(
    ("event", "what", "resumes"),
    [(1, "folder finished", True), (1, "folder moved", False), (2, "folder named", False)],
)
def test_a_kill_while_the_folder_changes_places_leaves_nothing_behind(
    inputs: Inputs, whole: Callable[[Extract], str], event: int, what: str, resumes: bool,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    made, kept = tmp_path / "artifacts/extract", tmp_path / "states"

    def run() -> None:
        with resumable_folder(made, kept, []) as states:
            extract(inputs, SETTINGS, seed=0, states=states)

    assert killed_at(event, what, run, monkeypatch)
    run()
    assert ("goes on" in capsys.readouterr().out) == resumes
    assert sha256_folder(made) == whole(SETTINGS)
    assert [path.name for path in made.parent.iterdir()] == ["extract"]
    assert not list(kept.iterdir())


def test_another_extraction_finds_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    made, kept = tmp_path / "artifacts/extract", tmp_path / "states"

    def begin(identity: object) -> States:
        with pytest.raises(KeyboardInterrupt), resumable_folder(made, kept, identity) as states:
            assert states.load(dict) is None
            (states.folder / "half").write_text("")
            raise KeyboardInterrupt
        return states

    first = begin({"seed": 0})
    assert first.folder.is_dir() and not made.exists()
    second = begin({"seed": 1})
    assert not first.folder.exists() and second.folder.is_dir()
    with resumable_folder(made, kept, {"seed": 1}) as states:
        states.load(dict)
        (states.folder / "whole").write_text("")
    assert [path.name for path in made.iterdir()] == ["whole"]
    assert not list(kept.iterdir())


def test_a_state_has_every_value_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rng.integers(2, dtype=np.int32)  # leaves half a draw behind
    state = {
        "number": 0.1 + 0.2, "text": "é", "none": None, "large": 2**127,
        "rng": rng.bit_generator.state,
        "of": {"arrays": [np.arange(6.0)[::2], np.zeros((0, 3), np.int64), {"f": np.float32([1])}]},
    }  # fmt: skip
    write_state(tmp_path / "state", state)
    read = read_state(tmp_path / "state")
    (strided, empty, other), (*others,) = state["of"]["arrays"], read["of"]["arrays"]
    assert {**read, "of": 0} == {**state, "of": 0}
    for there, back in zip(
        (strided, empty, other["f"]), (*others[:2], others[2]["f"]), strict=True
    ):
        assert there.dtype == back.dtype and np.array_equal(there, back)
    again = np.random.default_rng(0)
    again.bit_generator.state = read["rng"]
    assert again.integers(2**40, size=9).tolist() == rng.integers(2**40, size=9).tolist()
