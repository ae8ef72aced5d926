"""The registry as text: the columns of METRICS.md and of `sae-repro metrics`."""

from collections.abc import Iterable, Sequence

from sae_repro.metrics.metric import Metric, Place

ABSENT = "—"


_MUST_BEAT = {
    "all": "every control",
    "sparse": "sparse ones, same activations",
    "none": ABSENT,
}


def columns_of(metric: Metric) -> dict[str, str]:
    """All that a row says, by heading."""
    return {
        "metric": metric.name,
        "definition": metric.definition,
        "unit": metric.unit,
        "better": ABSENT if metric.better == "none" else metric.better,
        "must beat": ABSENT if metric.better == "none" else _MUST_BEAT[metric.controls],
        "95 % interval": ABSENT if metric.interval == "none" else metric.interval,
        "denominator": metric.denominator or ABSENT,
        "written by": _writer(metric),
        "shown in": ", ".join(_place(metric, place) for place in metric.shown) or ABSENT,
        "source": metric.source,
    }


def table_of(
    metrics: Iterable[Metric], columns: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """The chosen columns, all by default, of each row."""
    table = [columns_of(metric) for metric in metrics]
    return [{name: row[name] for name in columns or row} for row in table]


def _writer(metric: Metric) -> str:
    return {"always": "evaluate", "control": "control"}.get(
        metric.choice, f"evaluate: {metric.choice}"
    )


def _place(metric: Metric, place: Place) -> str:
    values = metric.shown_for.get(place)
    return place if values is None else f"{place} ({', '.join(values)})"
