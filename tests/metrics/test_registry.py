"""The registry of metrics: its rows, look-ups by name, filters by place, and its listings."""

from typing import get_args

import numpy as np
import pytest

from sae_repro.compare.report import write_metrics
from sae_repro.evaluate.metrics.monosemanticity import score
from sae_repro.metrics import (
    AREAS,
    CLASSES,
    CONTROLS,
    METRICS,
    Metric,
    find,
    matching,
    mean_over_seeds,
    names_in,
    nearest,
)
from sae_repro.metrics.metric import COLUMN_SUFFIXES, Place
from sae_repro.numerics.intervals import student, student_fraction
from sae_repro.params.evaluate import Chosen


def row(name: str) -> Metric:
    metric = find(name)
    assert metric is not None
    return metric


@pytest.mark.parametrize("name", ["cosine_sd", "fvu_low", "l0_high", "hole_rate[_low]"])
def test_a_metric_is_not_named_like_a_column_of_another(name: str) -> None:
    with pytest.raises(ValueError, match="for columns"):
        Metric(name=name, definition="", unit="")


@pytest.mark.parametrize("rows", [METRICS, CONTROLS], ids=["evaluate", "control"])
def test_a_table_has_each_name_once(rows: tuple[Metric, ...]) -> None:
    names = [metric.name for metric in rows]
    assert len(set(names)) == len(names)
    assert all(metric.definition and metric.unit and metric.source for metric in rows)


def test_every_choice_and_every_place_has_a_metric() -> None:
    assert {metric.choice for metric in METRICS} == {"always", *get_args(Chosen)}
    shown = {place for rows in AREAS.values() for metric in rows for place in metric.shown}
    assert shown == set(get_args(Place))


def test_a_full_name_goes_before_a_family_that_it_fits() -> None:
    assert row("coverage_half_log10_frequency").parameter is None
    assert row("coverage_next").name == "coverage_<kind>"
    assert row("mean_max_correlation_null_30").name == "mean_max_correlation_null_<width>"


@pytest.mark.parametrize("name", ["fvus", "probe_auc_", "probe_auc_x", "probe_auc_<k>", ""])
def test_names_with_placeholders_have_no_row(name: str) -> None:
    assert find(name) is None


def test_a_row_is_listed_by_its_own_name_too_and_control_stands_last() -> None:
    assert [metric.name for metric in matching("probe_auc_<k>")] == ["probe_auc_<k>"]
    assert [metric.choice for metric in matching("hole_rate")] == ["structure", "control"]
    assert matching("hole") == []
    assert "monosemantic_mean" in nearest("monosematic_mean")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("monosemantic_fraction_alive", "latents_alive"),
        ("mean_max_correlation_30", "reference_latents_30"),
        ("hole_rate", "structure_pairs_testable"),
        ("hole_rate_faint", "structure_pairs_testable_faint"),
        ("coverage_next", None),
    ],
)
def test_a_denominator_has_the_parameters_of_its_metric(name: str, count: str | None) -> None:
    assert row(name).denominator_of(name) == count


def test_rows_of_one_parameter_take_turns_by_its_number() -> None:
    measured = [f"mean_max_correlation_{n}" for n in ("100", "30", "null_30", "null_100")]
    assert names_in("structure.md", measured)[-4:] == [
        "mean_max_correlation_30",
        "mean_max_correlation_null_30",
        "mean_max_correlation_100",
        "mean_max_correlation_null_100",
    ]


def test_a_place_shows_the_parameters_that_the_row_states() -> None:
    measured = ["probe_auc_1", "probe_auc_2", "probe_auc_5", "hole_rate_faint"]
    shown = names_in("structure.md", measured)
    assert [name for name in shown if name.startswith("probe_auc")] == [
        "probe_auc_1",
        "probe_auc_5",
    ]
    assert "hole_rate" in shown and "hole_rate_faint" not in shown
    assert names_in("metrics.json") == [
        "l0", "fvu", "cosine", "ce_recovered_zero", "kl", "dead_fraction_never",
        "monosemantic_fraction", "pw_mcc",
    ]  # fmt: skip


def test_pooled_fractions_have_the_count_of_latents() -> None:
    pooled = [metric for metric in METRICS if metric.interval == "Wilson over latents"]
    assert pooled and all(metric.denominator for metric in pooled)


def test_classes_are_those_that_latents_are_put_into() -> None:
    written = [name.replace("-", "_").replace(" ", "_") for name in score.CLASSES]
    assert list(CLASSES) == written


def test_an_interval_over_seeds_stays_in_the_range_of_its_unit() -> None:
    apart = [0.1, 0.9, 1.0]
    assert student(apart)[2] > 1
    assert mean_over_seeds(row("coverage"), apart) == student_fraction(apart)
    mean, low, high = mean_over_seeds(row("cosine"), apart)
    assert (mean, low, high) == (pytest.approx(np.mean(apart)), student(apart)[1], 1.0)
    assert mean_over_seeds(row("kl"), apart) == mean_over_seeds(None, apart) == student(apart)
    assert np.isnan(mean_over_seeds(row("cosine"), [0.5])[1:]).all()


def test_the_table_of_metrics_has_a_whole_line_for_each(tmp_path) -> None:
    write_metrics(tmp_path)
    lines = (tmp_path / "METRICS.md").read_text().splitlines()
    rows = [line.replace(r"\|", "") for line in lines if line.startswith("| `")]
    assert len(rows) == len(METRICS) + len(CONTROLS)
    assert {line.count("|") for line in rows} == {12}
    assert not any(name.endswith(COLUMN_SUFFIXES) for name in (line.split("`")[1] for line in rows))
