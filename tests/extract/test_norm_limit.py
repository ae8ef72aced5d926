"""Massive activations: what is left out, what is counted, and that readers agree on it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae_repro.cli.describe import norms_table
from sae_repro.errors import StudyError
from sae_repro.evaluate.passages import Passages
from sae_repro.extract.extraction import Inputs, extract
from sae_repro.extract.norm_limit import NormLimit, limit_from
from sae_repro.extract.norms import Norms
from sae_repro.extract.resumption import States
from sae_repro.params import Extract
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_mlp_out")
SPLITS = ("train", "calibration", "validation")
SINK = 7  # a token id
SETTINGS = Extract(
    hooks=HOOKS, context=8, n_tokens=10_000, n_calibration_tokens=500, n_validation_tokens=150,
    batch_size=5, shard_rows=256, threads=1,
)  # fmt: skip


@pytest.fixture
def run(subject: Any, corpus: TokenDocuments, tmp_path: Path) -> Callable[..., ActivationStore]:
    """Extraction where the token SINK has 40 times its activation at the first hook."""

    def go(settings: Extract = SETTINGS, scale: float = 40.0) -> ActivationStore:
        sunk: list[torch.Tensor] = []

        def see(value: torch.Tensor, hook: Any) -> torch.Tensor:
            return torch.where((sunk[-1] == SINK)[..., None], value * scale, value)

        folder = tmp_path / f"extract-{len(list(tmp_path.iterdir()))}"
        whole = subject.forward

        def forward(tokens: torch.Tensor, **rest: Any) -> Any:
            sunk.append(tokens)
            return whole(tokens, **rest)

        subject.forward = forward
        try:
            with subject.hooks([(HOOKS[0], see)]):
                extract(Inputs(subject, corpus, {}), settings, seed=0, states=States(folder))
        finally:
            del subject.forward
        return ActivationStore(folder)

    return go


def places(store: ActivationStore, split: str) -> set[tuple[int, int]]:
    return {(int(d), int(p)) for d, p, _ in store.index(split).whole()}


def test_tokens_beyond_the_limit_are_left_out_of_every_hook_and_split(
    run: Callable[..., ActivationStore], corpus: TokenDocuments
) -> None:
    everything = run(SETTINGS.model_copy(update={"norm_limit": None}))
    store = run()
    assert "left_out" not in everything.manifest
    facts = store.manifest["left_out"]
    total = 0
    for split in SPLITS:
        of_all = everything.index(split).whole()
        expected = {(int(d), int(p)) for d, p, token in of_all if token != SINK}
        assert places(store, split) == expected
        assert len(expected) < len(of_all)
        assert facts["real_tokens"][split] == len(of_all)
        assert facts["tokens"][split] == len(of_all) - len(expected)
        total += facts["tokens"][split]
        for hook in HOOKS:
            kept = store.activations(hook, split).whole()
            assert len(kept) == len(expected) == store.manifest["tokens"][split]
            if split != "train":  # training rows are shuffled
                assert np.array_equal(
                    kept, everything.activations(hook, split).whole()[of_all[:, 2] != SINK]
                )
    assert facts["norm_limit"] == 10
    assert facts["hooks"] == {HOOKS[0]: total, HOOKS[1]: 0}
    assert sum(facts["positions"].values()) == total
    assert facts["positions"]["1"] > 0 and facts["positions"]["later"] > 0
    assert store.rms(HOOKS[0]) < everything.rms(HOOKS[0]) / 2


def test_people_are_told_of_norms_and_of_what_is_left_out(
    run: Callable[..., ActivationStore], tmp_path: Path
) -> None:
    assert norms_table(tmp_path) == ""
    (tmp_path / "artifacts").mkdir()
    for limit, last in ((None, "no token is left out"), (10.0, "norm_limit 10 left out: ")):
        store = run(SETTINGS.model_copy(update={"norm_limit": limit}))
        store.folder.replace(tmp_path / "artifacts/extract")
        _, _, *rows, empty, told = norms_table(tmp_path).splitlines()
        assert not empty and last in told
        left_out = store.manifest.get("left_out")
        for line, hook in zip(rows, HOOKS, strict=True):
            name, *numbers, beyond = line.split()
            norms = store.manifest["hooks"][hook]["norms"]
            assert name == hook
            shown = [float(number) for number in numbers]
            assert shown == pytest.approx([norms["median"], norms["q999"], norms["max"]], rel=1e-3)
            assert beyond == (str(left_out["hooks"][hook]) if left_out else "–")
        if left_out:
            out, of = (left_out[key]["train"] for key in ("tokens", "real_tokens"))
            assert f"{out:,} of {of:,} (train)" in told
        shutil.rmtree(tmp_path / "artifacts/extract")


def test_evaluations_windows_have_the_same_tokens_masked(
    run: Callable[..., ActivationStore],
) -> None:
    store = run()
    passages = Passages.load(store)  # refuses rows that are not the mask's
    row, column = np.nonzero(passages.mask)
    assert np.array_equal(passages.tokens[row, column], passages.index[:, 2])
    assert not (passages.tokens[passages.mask] == SINK).any()
    assert (passages.tokens == SINK).any()  # the model still reads it
    assert passages.mask.any(axis=1).all() and not passages.mask[:, 0].any()
    seen = store.seen()
    assert seen is not None and len(seen) == len(passages.index)


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_the_first_position_of_a_row_is_no_activation(
    run: Callable[..., ActivationStore], corpus: TokenDocuments, prepend_bos: bool
) -> None:
    store = run(SETTINGS.model_copy(update={"prepend_bos": prepend_bos, "norm_limit": None}))
    positions = store.index("validation").whole()[:, 1]
    room = 7 if prepend_bos else 8
    assert (positions >= 0).all()
    assert (positions % room == 0).any() == prepend_bos
    assert "0" in store.manifest["hooks"][HOOKS[0]]["norms"]["positions"]


def test_other_models_hooks_do_not_decide() -> None:
    limit = NormLimit(2.0, {"a": 1.0})
    column = np.array([1, 2, 3])
    keeps = limit.keeps("train", {"a": np.array([1.0, 9, 4]), "b": np.array([99.0, 0, 0])}, column)
    assert keeps.tolist() == [True, False, True]  # 2² is no more than (2 · 1)²
    assert limit.left_out("train").tolist() == [1]
    assert limit.positions["2"] == 1


def test_a_limit_that_would_take_many_tokens_is_refused() -> None:
    norms = np.ones(100)
    norms[:6] = 50
    says = (
        r"norm_limit = 10: would leave out 6.0% of 100 calibration tokens, 6.0% at h .*"
        r"raise it or set it to null"
    )
    with pytest.raises(StudyError, match=says):
        limit_from({"h": norms}, 10)
    norms[0] = 1
    assert limit_from({"h": norms}, 10).medians == {"h": 1.0}


def test_broken_activations_are_refused_and_not_left_out(
    run: Callable[..., ActivationStore],
) -> None:
    with pytest.raises(StudyError, match="activations are broken"):
        run(scale=float("inf"))


def test_norms_are_reported_as_they_were_before(run: Callable[..., ActivationStore]) -> None:
    everything = run(SETTINGS.model_copy(update={"norm_limit": None}))
    store = run()
    facts = store.manifest["hooks"][HOOKS[0]]["norms"]
    assert facts == everything.manifest["hooks"][HOOKS[0]]["norms"]
    x = everything.activations(HOOKS[0], "train").whole().astype(np.float64)
    norms = np.sqrt((x**2).sum(axis=1))
    assert facts["max"] == pytest.approx(norms.max(), rel=1e-12)
    assert facts["median"] == pytest.approx(np.median(norms), rel=2e-2)
    kept = store.activations(HOOKS[0], "train").whole().astype(np.float64)
    middle = np.sort(np.sqrt((kept**2).sum(axis=1)))[(len(kept) - 1) // 2]
    assert store.median_norm(HOOKS[0]) == pytest.approx(middle, rel=5e-4)


@given(
    st.lists(st.floats(0, 1e30, allow_subnormal=False), min_size=1, max_size=60),
    st.floats(0, 1),
    st.integers(1, 60),
    st.integers(1, 50),
)
def test_quantiles_are_order_statistics(
    values: list[float], fraction: float, size: int, waiting: int
) -> None:
    norms = Norms()
    x = np.array(values)
    for start in range(0, len(x), size):
        norms.add(x[start : start + size])
        if start % waiting == 0:
            norms.quantile(0.5)  # counts what waits
    expected = np.sort(x)[max(0, int(np.ceil(fraction * len(x))) - 1)]
    assert norms.quantile(fraction) == pytest.approx(expected, rel=5e-4, abs=1e-37)
    assert norms.max == x.max() and len(norms) == len(x)
