"""The MLflow projection of the results."""

from typing import Annotated

from pydantic import Field

from sae_repro.params.base import Section, Text


class Track(Section):
    """The MLflow projection of the results; MLFLOW_TRACKING_URI is the server."""

    experiment: Text = Field("sae-repro", description="MLflow experiment")
    weights: bool = Field(True, description="whether each run carries its SAE as an artifact")
    live_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        30.0,
        description="seconds between syncs of the training curves to MLflow while cells are "
        "trained, by a process of its own; a curve reaches to the cell's last checkpoint; 0: only "
        "the stage `track` sends them",
    )
