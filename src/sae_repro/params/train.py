"""Training settings that all cells have in common."""

from typing import Annotated, Literal

from pydantic import Field

from sae_repro.params.base import Count, Device, Section


class Train(Section):
    """Training settings that all cells have in common; a cell's own are in `cells`."""

    batch_size: Count = Field(512, description="activations per step")
    epochs: Count = Field(1, description="passes over the training activations")
    log_every: Count = Field(25, description="steps between rows of metrics.jsonl")
    checkpoint_every: Count = Field(
        1000, description="steps between checkpoints from which a killed cell resumes"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the matrix products (bfloat16: autocast, for GPUs); weights, Adam and "
        "losses stay float32",
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="CPU threads per cell; another number gives other bits"
    )
    device: Device = Field("cpu", description="cpu, cuda or cuda:N")
