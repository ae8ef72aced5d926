"""The sections of params.yaml, one for each stage, in the order in which they run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Commit, Count, Device, Section, Sha256, Share
from sae_repro.params.hooks import UNTRAINED

Chosen = Literal["monosemanticity", "structure", "dictionary", "references", "ngram", "ablation"]


class StoriesSource(Section):
    """The labelled grammar of small stories: offline, every token's concepts known."""

    kind: Literal["stories"]
    n_documents: Annotated[int, Field(ge=100, le=10_000_000)] = Field(
        description="stories to tell, 100 … 10 million; about 51 tokens each"
    )


class FilesSource(Section):
    """Text files (txt, jsonl, csv, parquet), each pinned by its content."""

    kind: Literal["files"]
    files: Annotated[dict[str, Sha256], Field(min_length=1)] = Field(
        description="path, relative to params.yaml → SHA-256 of the file (`sae-repro pin` fills it "
        "in); in a txt file, documents are separated by blank lines"
    )
    columns: tuple[str, ...] = Field(
        (),
        description="text columns of jsonl, csv and parquet files, joined by a newline; default: "
        "text",
    )
    label: str | None = Field(None, description="a column kept as each document's class")
    n_documents: Count | None = Field(None, description="documents to read; null: all")


class HubSource(Section):
    """A data set on the Hugging Face hub, pinned to a commit."""

    kind: Literal["hub"]
    name: str = Field(description="data set, e.g. stas/openwebtext-10k")
    config: str | None = Field(None, description="configuration of the data set")
    split: str = Field("train", description="split, slices allowed: train[:10%]")
    revision: Commit = Field(description="commit of the data set, 40 hex digits")
    columns: tuple[str, ...] = Field((), description="text columns, joined by a newline")
    label: str | None = Field(None, description="a column kept as each document's class")
    streaming: bool = Field(False, description="read without downloading all of it first")
    n_documents: Count | None = Field(None, description="documents to read; null: all")

    @model_validator(mode="after")
    def _streams_have_no_slices(self) -> Self:
        if self.streaming and "[" in self.split:
            raise ValueError("streaming knows no slices of a split: use n_documents instead")
        return self


class Corpus(Section):
    """text → token documents, split by a hash of their content."""

    source: Annotated[StoriesSource | FilesSource | HubSource, Field(discriminator="kind")] = Field(
        description="where the text comes from: stories, files, hub"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of the documents held out from every fit, by hash of content"
    )
    calibration: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02, description="share of the documents on which inference thresholds are set"
    )
    vocabulary: Annotated[int, Field(ge=300, le=200_000)] = Field(
        4096, description="byte-pair vocabulary when the subject is trained here on files or hub"
    )

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation + self.calibration >= 1:
            raise ValueError("validation + calibration must be < 1: the rest is for training")
        return self


class TrainedSubject(Section):
    """A tiny GPT-2 trained in the `subject` stage, by `subject.training`."""

    kind: Literal["train"]


class LocalSubject(Section):
    """A Hugging Face folder with safetensors weights, pinned by its content."""

    kind: Literal["local"]
    path: str = Field(description="folder, relative to params.yaml")
    sha256: Sha256 = Field(description="of the folder (`sae-repro pin` fills it in)")


class HubSubject(Section):
    """A model on the Hugging Face hub, pinned to a commit."""

    kind: Literal["hub"]
    name: str = Field(description="model, e.g. openai-community/gpt2")
    revision: Commit = Field(description="commit of the model, 40 hex digits")
    d_model: Count = Field(description="width of its residual stream, checked once it is loaded")
    n_layers: Count = Field(description="its number of blocks, checked once it is loaded")


class Training(Section):
    """How a subject of our own is trained: a GPT-2 on training documents only."""

    d_model: Annotated[int, Field(ge=4, le=4096)] = Field(64, description="residual stream width")
    n_layers: Annotated[int, Field(ge=1, le=48)] = Field(3, description="blocks")
    n_heads: Annotated[int, Field(ge=1, le=64)] = Field(4, description="heads; divides d_model")
    context: Annotated[int, Field(ge=8, le=4096)] = Field(64, description="positions, BOS included")
    steps: Count = Field(1000, description="AdamW steps")
    batch_size: Count = Field(64, description="rows per step")
    lr: Annotated[float, Field(gt=0, lt=1)] = Field(3e-3, description="peak rate, cosine to 10 %")
    lr_warmup: Share = Field(0.05, description="share of the steps with linear warm-up")
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
    """Which language model: what `corpus` needs to know, for the tokenizer."""

    source: Annotated[TrainedSubject | LocalSubject | HubSubject, Field(discriminator="kind")] = (
        Field(description="train one here, a local folder, or a model on the hub")
    )


class Subject(SubjectChoice):
    """The language model under study."""

    training: Training | None = Field(None, description="with source train: how")

    @model_validator(mode="after")
    def _training_belongs_to_train(self) -> Self:
        if (self.source.kind == "train") != (self.training is not None):
            raise ValueError("training goes with source: {kind: train}, and only with it")
        return self


class Extract(Section):
    """The subject's activations at named hooks → checksummed shards."""

    hooks: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="TransformerLens names, e.g. blocks.1.hook_resid_post; all in one forward pass"
    )
    untrained_hooks: tuple[str, ...] = Field(
        (),
        description="hooks read also from the subject's architecture with random weights, in the "
        "same pass; a cell reads one as untrained/<hook>: what a feature must not be found in",
    )
    context: Annotated[int, Field(ge=2, le=131_072)] = Field(
        64, description="positions of a row, BOS included; longer documents make several rows"
    )
    prepend_bos: bool = Field(True, description="whether rows start with BOS (masked out)")
    n_tokens: Count = Field(1_000_000, description="training tokens kept at most")
    n_calibration_tokens: Count = Field(50_000, description="calibration tokens kept at most")
    n_validation_tokens: Count = Field(100_000, description="validation tokens kept at most")
    pooling: Literal["token", "document_mean"] = Field(
        "token", description="one row per token, or one per document: the mean over its tokens"
    )
    dtype: Literal["float16", "float32"] = Field("float32", description="of the shards")
    batch_size: Count = Field(64, description="rows of `context` tokens per forward pass")
    shard_rows: Annotated[int, Field(ge=256)] = Field(
        65_536, description="activations per shard, on average"
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="CPU threads; another number gives other bits"
    )
    device: Device = Field("cpu", description="cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _hooks_once(self) -> Self:
        for name in ("hooks", "untrained_hooks"):
            hooks = getattr(self, name)
            if len(set(hooks)) < len(hooks):
                raise ValueError(f"{name} names one hook twice")
        return self

    @property
    def all_hooks(self) -> tuple[str, ...]:
        """Every hook by its name in the store: `untrained/…` where weights are random."""
        return (*self.hooks, *(UNTRAINED + hook for hook in self.untrained_hooks))


class Train(Section):
    """How every cell is trained; what it is, stands in `cells`."""

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


class ConceptLabels(Section):
    """Labels of a study's own, pinned by their content."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="parquet, relative to params.yaml: a row per span of tokens, with its document "
        "(number), start, end (token positions in it, end exclusive) and concept (a name)"
    )
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")


class Evaluate(Section):
    """One SAE on held-out activations."""

    batch_size: Count = Field(4096, description="activations per pass; changes no value")
    dead_threshold: Annotated[float, Field(ge=0)] = Field(
        0.07, description="a latent whose largest z stays below counts as dead_fraction_below"
    )
    fidelity_tokens: Count = Field(
        20_000,
        description="validation tokens on which the language model is run with the SAE in place",
    )
    metrics: tuple[Chosen, ...] = Field(
        ("monosemanticity", "structure", "dictionary", "references"),
        description="what is measured beside firing, reconstruction and fidelity: monosemanticity, "
        "each latent against a bank of concepts; structure, how latents divide concepts "
        "(splitting, holes, absorption, coverage, probes); dictionary, nearest atoms and "
        "description length; references, correlation with small SAEs; and, slower, ngram and "
        "ablation, which run the language model; [] for none",
    )
    structure_tokens: Annotated[int, Field(ge=1000)] = Field(
        20_000, description="structure: validation tokens in its sample of whole documents"
    )
    references: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (30, 100, 300), description="references: widths K of the small SAEs trained for it"
    )
    concepts: ConceptLabels | None = Field(
        None, description="labels of your own, which join that bank"
    )
    top_contexts: Count = Field(10, description="contexts of the largest activations per latent")
    quantiles: Annotated[int, Field(ge=2, le=20)] = Field(
        5, description="activation quantiles from which contexts are sampled"
    )
    contexts_per_quantile: Count = Field(3, description="contexts sampled per quantile and latent")
    context_tokens: Annotated[int, Field(ge=0, le=128)] = Field(
        12, description="tokens shown before and after the activating one"
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(1, description="CPU threads per cell")
    device: Device = Field("cpu", description="cpu, cuda or cuda:N")


class Control(Section):
    """The same autoencoders where the truth is known: does the instrument work?"""

    worlds: tuple[Literal["tree", "two_atoms", "oracle", "revival"], ...] = Field(
        ("tree", "two_atoms", "oracle", "revival"),
        description="synthetic activations to try: the toy tree, two atoms in the plane, a "
        "direction per labelled concept of the stories (skipped for other text), half of the "
        "latents dead from the start; [] for none",
    )
    seeds: Count = Field(3, description="worlds and SAEs per recipe, each from a seed of its own")
    tree_steps: Count = Field(
        1400,
        description="training steps on the toy tree, batch 200; twice as many "
        "for vanilla and matryoshka-random",
    )
    oracle_steps: Count = Field(
        200,
        description="training steps on the oracle, batch 512; beyond 200 up to whole passes",
    )
    revival_steps: Count = Field(900, description="training steps with half dead, batch 200")


class Compare(Section):
    """All cells → versioned tables and figures."""

    matched_l0: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (8.0, 16.0, 32.0), description="L0 at which architectures of equal width are compared"
    )
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = Field(
        1000, description="resamplings of the validation documents behind every interval"
    )


class Track(Section):
    """The MLflow projection of the results; where to, says MLFLOW_TRACKING_URI."""

    experiment: Annotated[str, Field(min_length=1)] = Field(
        "sae-repro", description="MLflow experiment"
    )
    weights: bool = Field(True, description="whether each run carries its SAE as an artifact")
