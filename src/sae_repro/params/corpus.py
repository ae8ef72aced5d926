"""Text → token documents, split by a hash of their content."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Commit, Count, Many, Names, Place, Section, Sha256, Text


class StoriesSource(Section):
    """The labelled grammar of small stories: offline, every token's concepts known."""

    kind: Literal["stories"]
    n_documents: Annotated[int, Field(ge=100, le=10_000_000)] = Field(
        description="number of stories, 100 … 10 million; about 51 tokens each"
    )


class FilesSource(Section):
    """Text files (txt, jsonl, json, csv, parquet), each pinned by its content."""

    kind: Literal["files"]
    files: Annotated[dict[Place, Sha256], Field(min_length=1)] = Field(
        description="path, relative to params.yaml → SHA-256 of the file (`sae-repro pin` fills it "
        "in); in a txt file, documents are separated by blank lines"
    )
    columns: Many[Text] = Field(
        (),
        description="text columns of jsonl, json, csv and parquet files, joined by a newline; "
        "default: text",
    )
    label: Text | None = Field(
        None, description="a column kept, as it is written, as each document's class"
    )
    n_documents: Count | None = Field(None, description="documents with text to read; null: all")


class RowTable(Section):
    """What the rows of given activations are, a row of the table for each."""

    path: Place = Field(description="parquet, csv or jsonl, relative to params.yaml")
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")
    document: Text = Field(
        "document", description="column: rows of one document share a split; any name or number"
    )
    position: Text | None = Field(
        None, description="column: a row's place in its document; null: as in the file"
    )
    text: Text | None = Field(None, description="column: what contexts show of a row")
    label: Names | None = Field(
        None,
        description="column: the class of the row's document; or a list of them: its classes, each "
        "by a column of its own",
    )

    @model_validator(mode="after")
    def _columns_can_be_told_apart(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"label = {', '.join(self.labels)}: names a column twice")
        for column in self.labels if len(self.labels) > 1 else ():
            if "=" in column:
                raise ValueError(
                    f"label = {column}: classes of several columns are named column=value; rename "
                    "a column that has = in its own name"
                )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of classes; () without."""
        if isinstance(self.label, str):
            return (self.label,)
        return self.label or ()


class ActivationsSource(Section):
    """Activations from anywhere, [N, D]: no text, and no language model."""

    kind: Literal["activations"]
    files: Annotated[dict[Place, Sha256], Field(min_length=1)] = Field(
        description="path, relative to params.yaml → SHA-256 of the file (`sae-repro pin` fills it "
        "in): npy, safetensors, parquet (a column per dimension, or one of lists) or pt (read with "
        "weights_only); several are one after another"
    )
    tensor: Text | None = Field(
        None, description="which tensor of a safetensors or pt file; null: the only one"
    )
    table: RowTable | None = Field(
        None, description="what the rows are; null: each row is a document of its own"
    )
    name: Text = Field("given activations", description="what tables call the data")


class HubSource(Section):
    """A data set on the Hugging Face hub, pinned to a commit."""

    kind: Literal["hub"]
    name: Text = Field(description="data set, e.g. stas/openwebtext-10k")
    config: Text | None = Field(None, description="configuration of the data set")
    split: Text = Field("train", description="split, slices allowed: train[:10%]")
    revision: Commit = Field(description="commit of the data set, 40 hex digits")
    columns: Many[Text] = Field((), description="text columns, joined by a newline")
    label: Text | None = Field(None, description="a column kept as each document's class")
    streaming: bool = Field(False, description="read without downloading all of it first")
    n_documents: Count | None = Field(None, description="documents to read; null: all")

    @model_validator(mode="after")
    def _streams_have_no_slices(self) -> Self:
        if self.streaming and "[" in self.split:
            raise ValueError("streaming knows no slices of a split: use n_documents instead")
        return self


class Corpus(Section):
    """text → token documents, split by a hash of their content."""

    source: Annotated[
        StoriesSource | FilesSource | HubSource | ActivationsSource, Field(discriminator="kind")
    ] = Field(
        description="where the text comes from: stories, files, hub; or activations, without text"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="fraction of the documents held out from every fit, by hash of content"
    )
    calibration: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02, description="fraction of the documents on which inference thresholds are set"
    )
    tuning: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="fraction of the documents by which `tune` chooses settings: nothing is "
        "trained on them, and no reported number is measured on them; 0: none, and no tuning",
    )
    vocabulary: Annotated[int, Field(ge=300, le=200_000)] = Field(
        4096, description="byte-pair vocabulary when the subject is trained here on files or hub"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation + self.calibration + self.tuning >= 1:
            raise ValueError(
                "validation + calibration + tuning must be < 1: the rest is for training"
            )
        return self
