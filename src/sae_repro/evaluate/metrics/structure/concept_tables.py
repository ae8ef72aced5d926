"""All structure metrics that use concepts, of one SAE: a row per concept, a row per pair."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sae_repro.evaluate.metrics.structure.absorption import (
    PAIR_COLUMNS,
    DenseProbe,
    Pair,
    dense_probe,
    family_pairs,
    own_candidates,
    unit_rows,
)
from sae_repro.evaluate.metrics.structure.aggregates import summary
from sae_repro.evaluate.metrics.structure.coverage import coverage, half_point
from sae_repro.evaluate.metrics.structure.hierarchy import Hierarchy, hierarchy
from sae_repro.evaluate.metrics.structure.probes import (
    MOST,
    Split,
    probe_auc,
    probe_loss,
    ranked,
    split_sets,
)
from sae_repro.evaluate.metrics.structure.sample import Sample
from sae_repro.evaluate.metrics.structure.sample_halves import Halves
from sae_repro.evaluate.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

AUC_LATENTS = (1, 2, 5)


@dataclass(frozen=True)
class Frames:
    """The tables of one SAE, as they are written."""

    concepts: "pd.DataFrame"
    """concept, kind, frequency, positives_fit, positives_test; phi, latent; recall_at_p80,
    precise_latent, union_recall, union_latents, fragmented; probe_auc_1, _2, _5; probe_loss,
    probe_loss_latent; and of parents alone splitting and split_f1."""
    pairs: "pd.DataFrame"
    """The fields and fractions of `absorption.Pair`, concepts by name."""


def concept_structure(
    sample: Sample, seed: int, probes: dict[int, DenseProbe] | None = None
) -> tuple[Frames, Summary]:
    """Measure one SAE on its sample: tables, and metrics with counts and intervals.

    Without concepts the tables are empty and the metrics None. `probes` keeps the dense probes for
    other SAEs on the same activations, tokens and concepts: hand it over empty, then again.
    """
    halves, tree = Halves.of(sample), hierarchy(sample.bank)
    splits, own_splits = _splits(halves, tree)
    frames = Frames(
        _concepts(sample, halves, tree, splits),
        _pairs(sample, halves, tree, own_splits, {} if probes is None else probes),
    )
    point = half_point(
        frames.concepts["frequency"].to_numpy(np.float64),
        frames.concepts["covered"].to_numpy(bool),
        seed,
    )
    return frames, summary(frames.concepts, frames.pairs, sample.bank, tree, point, seed)


def _splits(halves: Halves, tree: Hierarchy) -> tuple[list[Split], list[Split]]:
    """The split set of each parent, among all latents and among those that may stand for it."""
    parents, contrast = _parents(tree), halves.contrast
    best = ranked(np.abs(contrast.difference_ck[parents]), MOST)
    candidates = [row[contrast.fires_k[row] > 0] for row in best]
    candidates += [own_candidates(contrast, family) for family in tree.families]
    splits = split_sets(halves, np.tile(parents, 2), candidates)
    return splits[: len(parents)], splits[len(parents) :]


def _concepts(
    sample: Sample, halves: Halves, tree: Hierarchy, splits: list[Split]
) -> "pd.DataFrame":
    import pandas as pd

    bank, cover = sample.bank, coverage(sample, halves.test)
    positives_fit, positives_test = (
        half.carries_cn.sum(axis=1) for half in (halves.fit, halves.test)
    )
    auc = {f"probe_auc_{k}": of_k for k, of_k in probe_auc(halves, AUC_LATENTS).items()}
    loss, loss_latent = probe_loss(halves)
    frame = pd.DataFrame(
        {
            "concept": pd.Series(bank.names, dtype="str"),
            "kind": pd.Series(bank.kinds, dtype="str"),
            "frequency": (positives_fit + positives_test) / len(bank.fit),
            "positives_fit": positives_fit,
            "positives_test": positives_test,
            "phi": cover.phi_c,
            "latent": cover.latent_c,
            "covered": cover.covered_c,
            "recall_at_p80": cover.recall_c,
            "precise_latent": cover.precise_latent_c,
            "union_recall": cover.union_recall_c,
            "union_latents": cover.union_latents_c,
            "fragmented": cover.fragmented_c,
            **auc,
            "probe_loss": loss,
            "probe_loss_latent": loss_latent,
        }
    )
    parents = _parents(tree)
    frame["splitting"], frame["split_f1"] = np.full((2, len(frame)), np.nan)
    # of no latent there is no split: NaN, and counted
    counts = [len(split.latents) - 1 if len(split.latents) else np.nan for split in splits]
    frame.loc[parents, "splitting"] = counts
    frame.loc[parents, "split_f1"] = [split.f1 for split in splits]
    return frame


def _pairs(
    sample: Sample,
    halves: Halves,
    tree: Hierarchy,
    splits: list[Split],
    probes: dict[int, DenseProbe],
) -> "pd.DataFrame":
    import pandas as pd

    unit_kd, pairs = unit_rows(sample.d_kd), list[Pair]()
    for family, split in zip(tree.families, splits, strict=True):
        if family.parent not in probes:
            probes[family.parent] = dense_probe(halves, family.parent)
        pairs += family_pairs(halves, unit_kd, family, split, probes[family.parent])
    rows = [pair.row(sample.bank.names, sample.bank.kinds) for pair in pairs]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def _parents(tree: Hierarchy) -> npt.NDArray[np.int64]:
    return np.array([family.parent for family in tree.families], dtype=np.int64)
