"""The language model under study."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Commit, Count, Device, Fraction, Place, Section, Sha256, Text


class TrainedSubject(Section):
    """A tiny GPT-2 trained in the `subject` stage, by `subject.gpt2`."""

    kind: Literal["train"]


class NoSubject(Section):
    """No language model: activations are given (corpus.source.kind: activations)."""

    kind: Literal["none"]


class LocalSubject(Section):
    """A Hugging Face folder with safetensors weights, pinned by its content."""

    kind: Literal["local"]
    path: Place = Field(description="folder, relative to params.yaml")
    sha256: Sha256 = Field(description="of the folder (`sae-repro pin` fills it in)")


class GgufSubject(Section):
    """A model in a GGUF file (llama.cpp's format), pinned by its content; dequantised to fp32."""

    kind: Literal["gguf"]
    path: Place = Field(description="file, relative to params.yaml")
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")


class HubSubject(Section):
    """A model on the Hugging Face hub, pinned to a commit."""

    kind: Literal["hub"]
    name: Text = Field(description="model, e.g. openai-community/gpt2")
    revision: Commit = Field(description="commit of the model, 40 hex digits")
    d_model: Count = Field(description="width of its residual stream, checked once it is loaded")
    n_layers: Count = Field(description="its number of blocks, checked once it is loaded")


HereSubject = LocalSubject | GgufSubject
"""A model in a folder or a file here, pinned by its content."""

PretrainedSubject = HereSubject | HubSubject
"""A model, with its tokenizer, that was trained elsewhere."""


class Training(Section):
    """A GPT-2 trained here, on training documents only."""

    d_model: Annotated[int, Field(ge=4, le=4096)] = Field(64, description="residual stream width")
    n_layers: Annotated[int, Field(ge=1, le=48)] = Field(3, description="blocks")
    n_heads: Annotated[int, Field(ge=1, le=64)] = Field(4, description="heads; divides d_model")
    context: Annotated[int, Field(ge=8, le=4096)] = Field(64, description="positions, BOS included")
    steps: Count = Field(1000, description="AdamW steps")
    batch_size: Count = Field(64, description="rows per step")
    lr: Annotated[float, Field(gt=0, lt=1)] = Field(3e-3, description="peak rate, cosine to 10 %")
    lr_warmup: Fraction = Field(0.05, description="fraction of the steps with linear warm-up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.1, description="of matrices only")
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="CPU threads; another number gives other bits"
    )
    device: Device = Field("cpu", description="cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads must divide d_model = {self.d_model}")
        return self


class SubjectChoice(Section):
    """The choice of language model: all that `corpus` reads of it, for the tokenizer."""

    source: Annotated[
        TrainedSubject | PretrainedSubject | NoSubject, Field(discriminator="kind")
    ] = Field(
        description="train one here, a local folder, a GGUF file, a model on the hub, or none"
    )


class Subject(SubjectChoice):
    """The language model under study."""

    training: Training | None = Field(
        None, description="of a subject trained here (source train): sizes and optimiser"
    )

    @model_validator(mode="after")
    def _training_belongs_to_train(self) -> Self:
        if (self.source.kind == "train") != (self.training is not None):
            raise ValueError("training goes with source: {kind: train}, and only with it")
        return self
