"""What MLflow's page of a study shows first: its cells as three charts.

MLflow keeps a shared view as a tag of the experiment, as its own Share button makes them; the page
is asked for it by its key.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sae_repro.files import canonical_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

KIND = "mlflow.experimentKind"
SECTIONS = {"held-out": "Held-out documents", "training": "Training"}


def publish(client: "MlflowClient", experiment_id: str, study: str) -> str:
    """Put the view of `study` into the experiment; the page that shows it, without the host."""
    tags = client.get_experiment(experiment_id).tags
    if KIND not in tags:
        client.set_experiment_tag(experiment_id, KIND, "custom_model_development")
    key = f"sae-repro-{study}"
    tag, view = f"mlflow.sharedViewState.{key}", canonical_json(_view(study))
    if tags.get(tag) != view:
        client.set_experiment_tag(experiment_id, tag, view)
    return (
        f"#/experiments/{experiment_id}/runs?compareRunsMode=CHART&viewStateShareKey={quote(key)}"
    )


def _view(study: str) -> dict[str, Any]:
    """The state of MLflow's page: current cells only, all of them shown."""
    wanted = {"kind": "cell", "superseded": "false", "study": study}
    return {
        # MLflow's filters have no escape for a quote
        "searchFilter": " and ".join(
            f"tags.`sae_repro.{name}` = '{value}'"
            for name, value in wanted.items()
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
        "isAccordionReordered": False,
        "autoRefreshEnabled": False,
        "hideEmptyCharts": True,
        "compareRunSections": [
            {"uuid": uuid, "name": name, "display": True, "isReordered": False}
            for uuid, name in SECTIONS.items()
        ],
        "compareRunCharts": _charts(),
    }


def _charts() -> list[dict[str, Any]]:
    frontier: dict[str, Any] = {
        "type": "SCATTER",
        "metricSectionId": "held-out",
        "displayName": "FVU over L0",
        "xaxis": {"key": "l0", "type": "METRIC"},
        "yaxis": {"key": "fvu", "type": "METRIC"},
    }
    monosemantic: dict[str, Any] = {
        "type": "BAR",
        "metricSectionId": "held-out",
        "displayName": "share of monosemantic latents",
        "metricKey": "monosemantic_fraction",
    }
    curve: dict[str, Any] = {
        "type": "LINE",
        "metricSectionId": "training",
        "displayName": "FVU of the training batch",
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
         "runsCountToCompare": 100, **chart}
        for n, chart in enumerate((frontier, monosemantic, curve))
    ]  # fmt: skip
