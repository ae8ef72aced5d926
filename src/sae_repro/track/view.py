"""The view of MLflow's page that a study opens with: its cells as three charts.

MLflow keeps a shared view as a tag of the experiment, as its own Share button makes them; the
page's address names it by its key.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sae_repro.files import canonical_json
from sae_repro.metrics import names_in

if TYPE_CHECKING:
    from mlflow import MlflowClient

CELLS = "cells"
# MLflow adds a chart per metric below ours, in sections by the first part of their names
FOLDED = ("Model metrics", "train", "interval", "count")


def publish(client: "MlflowClient", experiment_id: str, study: str) -> str:
    """Put the view of `study` into the experiment; the page that shows it, without the host."""
    key = f"sae-repro-{study}"
    tag, view = f"mlflow.sharedViewState.{key}", canonical_json(_view(study))
    if client.get_experiment(experiment_id).tags.get(tag) != view:
        client.set_experiment_tag(experiment_id, tag, view)
    return (
        f"#/experiments/{experiment_id}/runs?compareRunsMode=CHART&viewStateShareKey={quote(key)}"
    )


def _view(study: str) -> dict[str, Any]:
    """The state of MLflow's page: current cells only, all of them shown."""
    tags = {"kind": "cell", "superseded": "false", "study": study}
    return {
        # MLflow's filters have no escape for a quote
        "searchFilter": " and ".join(
            f"tags.`sae_repro.{name}` = '{value}'"
            for name, value in tags.items()
            if "'" not in value
        ),
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "runsHiddenMode": "SHOW_ALL",
        "runsHidden": [],
        "runsPinned": [],
        "runsExpanded": {},
        "runsVisibilityMap": {},
        "selectedColumns": [],
        "isAccordionReordered": True,  # ours first, not by the alphabet
        "autoRefreshEnabled": False,
        "hideEmptyCharts": True,
        "compareRunSections": [
            {
                "uuid": name.replace(" ", "-"),
                "name": name,
                "display": name == CELLS,
                "isReordered": False,
            }
            for name in (CELLS, *FOLDED)
        ],
        "compareRunCharts": _charts(),
    }


def _charts() -> list[dict[str, Any]]:
    x, y = names_in("frontier")
    frontier: dict[str, Any] = {
        "type": "SCATTER",
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
    }
    bars = [{"type": "BAR", "metricKey": name} for name in names_in("MLflow chart")]
    curve: dict[str, Any] = {
        "type": "LINE",
        "metricKey": "train/fvu",
        "selectedMetricKeys": ["train/fvu"],
        "lineSmoothness": 0,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "log",
        "range": {},
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    return [
        {"uuid": f"sae-repro-{n}", "deleted": False, "isGenerated": False,
         "metricSectionId": CELLS, "runsCountToCompare": 100, **chart}
        for n, chart in enumerate((frontier, *bars, curve))
    ]  # fmt: skip
