"""Tables of concepts and pairs: a summary that agrees with them, whatever the order."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array

from sae_repro.evaluate.metrics.structure.absorption import DenseProbe
from sae_repro.evaluate.metrics.structure.concept_tables import AUC_LATENTS, concept_structure
from sae_repro.evaluate.metrics.structure.sample import Sample

N = 6_000


def mixed(planted: Callable[..., Sample]) -> Sample:
    rng = np.random.default_rng(0)
    u = rng.random(N)
    labels = np.stack([u < 0.3, u < 0.1, (u >= 0.1) & (u < 0.2), *(rng.random((9, N)) < 0.1)], 1)
    fires = rng.random((N, 20)) < 0.1
    fires[:, :12] |= labels & (rng.random((N, 12)) < np.linspace(0.95, 0.3, 12))
    a = fires * rng.exponential(size=(N, 20))
    kinds = ("class",) * 6 + ("state",) * 6
    return planted(labels, a, kinds=kinds, x_nd=a[:, :12] + 0.1 * rng.standard_normal((N, 12)),
                   d_kd=rng.standard_normal((20, 12)))  # fmt: skip


def test_the_summary_agrees_with_the_tables(planted: Callable[..., Sample]) -> None:
    sample = mixed(planted)
    frames, summary = concept_structure(sample, 0)
    concepts, pairs = frames.concepts, frames.pairs
    zero = pairs[pairs["silence"] == "zero"]
    assert summary.metrics["hole_rate"] == pytest.approx(zero["hole_rate"].mean())
    assert summary.metrics["coverage"] == concepts["covered"].mean()
    for kind in ("class", "state"):
        expected = concepts.loc[concepts["kind"] == kind, "covered"].mean()
        assert summary.metrics[f"coverage_{kind}"] == expected
    for k in AUC_LATENTS:
        assert summary.metrics[f"probe_auc_{k}"] == pytest.approx(concepts[f"probe_auc_{k}"].mean())
    # the half-point may have a value and no interval; so has a mean over this one parent
    few = ("half", "hole", "absorption", "childless", "splitting")
    sure = {k for k, v in summary.metrics.items() if v is not None}
    assert {k for k in sure if not any(part in k for part in few)} <= set(summary.intervals)
    assert not [k for k in summary.intervals if any(part in k for part in few[1:])]
    for name, (low, high) in summary.intervals.items():
        value = summary.metrics[name]
        assert value is not None
        assert low <= value <= high
    counts = summary.counts
    assert counts["structure_pairs"] == len(zero)
    whys = [n for name, n in counts.items()
            if name.startswith("structure_pairs_") and not name.endswith("faint")]  # fmt: skip
    assert sum(whys) == counts["structure_pairs"]
    assert counts["structure_tokens_fit"] + counts["structure_tokens_test"] == N
    assert counts["structure_concepts"] == 12
    assert counts["structure_parents"] == concepts["splitting"].notna().sum() == 1
    again = concept_structure(sample, 0)
    assert again[1] == summary
    pd.testing.assert_frame_equal(again[0].pairs, pairs, check_exact=True)
    pd.testing.assert_frame_equal(again[0].concepts, concepts, check_exact=True)


def test_the_order_of_documents_does_not_matter(planted: Callable[..., Sample]) -> None:
    """Up to rounding; shards and batches do not even change the order."""
    sample = mixed(planted)
    order = np.random.default_rng(0).permutation(N)
    bank = sample.bank
    moved = replace(
        sample,
        x_nd=sample.x_nd[order],
        a_nk=csc_array(sample.a_nk.toarray()[order]),
        bank=replace(bank, labels=csc_array(bank.labels.toarray()[order]), fit=bank.fit[order],
                     document=bank.document[order], position=bank.position[order],
                     token=bank.token[order]),
    )  # fmt: skip
    (one, one_summary), (other, again) = concept_structure(sample, 0), concept_structure(moved, 0)
    pd.testing.assert_frame_equal(one.pairs, other.pairs, rtol=1e-6)
    pd.testing.assert_frame_equal(one.concepts, other.concepts, rtol=1e-5)
    for name, value in one_summary.metrics.items():
        assert again.metrics[name] == (None if value is None else pytest.approx(value, rel=1e-5))


@pytest.mark.parametrize("latents", [1, 3])
def test_sample_without_concepts_has_no_metrics(
    planted: Callable[..., Sample], latents: int
) -> None:
    a = np.random.default_rng(0).random((400, latents))
    frames, summary = concept_structure(planted(np.zeros((400, 0)), a), 0)
    assert len(frames.concepts) == len(frames.pairs) == 0
    assert {"hole_rate", "absorption"} <= set(frames.pairs.columns)
    assert set(summary.metrics.values()) == {None}
    assert summary.intervals == {}
    assert summary.counts["structure_concepts"] == 0


def test_latents_that_never_fire_find_nothing(planted: Callable[..., Sample]) -> None:
    sample = replace(mixed(planted), a_nk=csc_array((N, 20), dtype=np.float32))
    frames, summary = concept_structure(sample, 0)
    assert summary.metrics["coverage"] == 0
    assert summary.metrics["probe_auc_5"] == 0.5
    assert summary.metrics["probe_loss"] == pytest.approx(np.log(2))
    assert summary.metrics["splitting_mean"] is None
    assert summary.counts["structure_parents_without_split_set"] == 1
    assert set(frames.pairs["status"]) <= {"no split set", "dense probe"}
    assert (frames.concepts["latent"] == -1).all()


def test_probes_kept_for_the_next_sae_change_nothing(planted: Callable[..., Sample]) -> None:
    sample = mixed(planted)
    other = replace(sample, a_nk=csc_array(sample.a_nk[:, ::-1]))
    probes: dict[int, DenseProbe] = {}
    concept_structure(sample, 0, probes)
    assert len(probes) == 1
    kept, summary = concept_structure(other, 0, probes)
    alone, expected = concept_structure(other, 0)
    assert summary == expected
    pd.testing.assert_frame_equal(kept.pairs, alone.pairs, check_exact=True)
