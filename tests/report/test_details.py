"""Details of a latent in the explorer that the judge scored."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from sae_repro.report.details import by_bin, histogram, judge_scores
from sae_repro.report.shown import ShownSae


def test_a_bin_has_the_specificity_of_the_quantile_that_its_median_is_in() -> None:
    values = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 10.0], dtype=np.float32)
    shown = histogram(values, 0.0, 5)
    assert shown is not None and shown["counts"] == [6, 0, 0, 0, 2]
    # four quantiles of two values each: 1 1 | 1 1 | 1 1 | 9 10
    assert by_bin(shown["counts"], [0.0, 1.0, 2.0, 3.0]) == [1.0, None, None, None, 3.0]
    assert by_bin([1] * 4, [0.5, None]) == [0.5, 0.5, None, None]


def test_scores_are_those_of_explained_latents() -> None:
    explained: list[dict[str, Any]] = [
        {"latent": 3, "fuzzing": {"balanced_accuracy": 0.75},
         "specificity": {"mean": [0.1, 1.5, None], "answered": [4, 2, 0]}},
        {"latent": 5, "detection": {"balanced_accuracy": None}, "specificity": None},
    ]  # fmt: skip
    judged = judge_scores(cast(ShownSae, SimpleNamespace(judged={"explained": explained})))
    assert judged.scores == {3: [["fuzzing (balanced accuracy)", 0.75]]}
    assert judged.specificity == {3: [0.5, None]}
