"""The MLflow projection of the results."""

from typing import Annotated

from pydantic import Field

from sae_repro.params.base import Section


class Track(Section):
    """The MLflow projection of the results; MLFLOW_TRACKING_URI is the server."""

    experiment: Annotated[str, Field(min_length=1)] = Field(
        "sae-repro", description="MLflow experiment"
    )
    weights: bool = Field(True, description="whether each run carries its SAE as an artifact")
