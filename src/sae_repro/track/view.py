"""The view of MLflow's page that a study opens with: frontier, choices, controls, curves.

MLflow keeps a shared view as a tag of the experiment, as its own Share button makes them; the
page's address names it by its key.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sae_repro.files import canonical_json
from sae_repro.metrics import AREAS, find, names_in
from sae_repro.track.projection import FRONTIER_X

if TYPE_CHECKING:
    from mlflow import MlflowClient

CELLS = "cells"
COLUMNS = ("tags.`architecture`", "tags.`width`", "tags.`target_l0`", "tags.`hook`",
           "tags.`control`", "tags.`status`", "metrics.`l0`", "metrics.`fvu`")  # fmt: skip
"""What the page's table shows beside a run's name."""
_LINE: Mapping[str, Any] = {
    "type": "LINE",
    "lineSmoothness": 0,
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
# MLflow adds a chart per metric below ours, in sections by the first part of their names
FOLDED = ("Model metrics", "train", "plot", "interval", "count", "cost")


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
        "selectedColumns": list(COLUMNS),
        "isAccordionReordered": True,  # ours first, not by the alphabet
        "autoRefreshEnabled": False,
        "hideEmptyCharts": True,
        "compareRunSections": [
            {
                "uuid": name.replace(" ", "-"),
                "name": name,
                "display": name == CELLS,
                "isReordered": False,
                "columns": 2,
            }
            for name in (CELLS, *FOLDED)
        ],
        "compareRunCharts": _charts(),
    }


def _charts() -> list[dict[str, Any]]:
    _, y = names_in("frontier")
    frontier = {
        **_LINE,
        "metricKey": y,
        "selectedMetricKeys": [y],
        # of its charts only curves over the step have a log scale on x
        "xAxisKey": "metric",
        "selectedXAxisMetricKey": FRONTIER_X,
        "useGlobalXaxisKey": False,
        "displayPoints": True,
    }
    parallel = {
        "type": "PARALLEL",
        "selectedParams": ["expansion", "sparsity"],
        # a run without all of them is left out: so are the controls, which have no FRONTIER_X
        "selectedMetrics": [FRONTIER_X, y, *_dead(), *names_in("MLflow chart")],
        "showAllRuns": False,
    }
    bars = [{"type": "BAR", "metricKey": name} for name in names_in("MLflow chart")]
    curves = {
        **_LINE,
        "metricKey": f"train/{y}",
        "selectedMetricKeys": [f"train/{y}"],
        "xAxisKey": "step",
    }
    return [
        {"uuid": f"sae-repro-{n}", "deleted": False, "isGenerated": False,
         "metricSectionId": CELLS, "runsCountToCompare": 100, **chart}
        for n, chart in enumerate((frontier, parallel, *bars, curves))
    ]  # fmt: skip


def _dead() -> list[str]:
    """The fraction of dead latents that tables compare architectures by."""
    return [name for name in names_in("matched_l0.md") if find(name) in AREAS["Firing"]]
