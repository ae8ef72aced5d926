"""The subject's activations at named hooks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Count, Device, Many, Section, Text
from sae_repro.params.hooks import EMBEDDINGS, UNTRAINED, each_layer


class Extract(Section):
    """The subject's activations at named hooks → checksummed shards."""

    hooks: Annotated[Many[Text], Field(min_length=1)] = Field(
        description="TransformerLens names, e.g. blocks.1.hook_resid_post, blocks.0.attn.hook_z "
        "(blocks.0.attn.hook_z.3: one head), blocks.2.mlp.hook_post, ln_final.hook_out; all in one "
        "forward pass. blocks.*.… stands for all layers, blocks.0-3.… and blocks.0,2.… for some"
    )
    untrained_hooks: Many[Text] = Field(
        (),
        description="hooks read also from the subject's architecture with random weights, in the "
        "same pass; a cell reads one as untrained/<hook>: a negative control",
    )
    embeddings_hooks: Many[Text] = Field(
        (),
        description="hooks read also from that architecture with random weights but the subject's "
        "own embeddings; a cell reads one as embeddings/<hook>: a negative control",
    )
    context: Annotated[int, Field(ge=2, le=131_072)] = Field(
        64, description="positions of a row, BOS included; longer documents make several rows"
    )
    prepend_bos: bool | Text = Field(
        True,
        description="what rows start with: true (the tokenizer's BOS, or EOS if it has none), "
        "false (nothing), or a token's text, such as what separated the model's training documents",
    )
    norm_limit: Annotated[float, Field(ge=2)] | None = Field(
        10,
        description="tokens whose norm is more than this many times the hook's median, at any of "
        "`hooks`, are left out of all splits and hooks; null: none. A row's first position is in "
        "no case an activation",
    )
    n_tokens: Count = Field(
        1_000_000, description="training tokens at most, before norm_limit leaves some out"
    )
    n_calibration_tokens: Count = Field(50_000, description="calibration tokens kept at most")
    n_validation_tokens: Count = Field(100_000, description="validation tokens kept at most")
    n_tuning_tokens: Count = Field(
        50_000, description="tuning tokens kept at most, where corpus.tuning is not 0"
    )
    pooling: Literal["token", "document_mean"] = Field(
        "token", description="one row per token, or one per document: the mean over its tokens"
    )
    dtype: Literal["float16", "float32"] = Field("float32", description="of the shards")
    batch_size: Count = Field(64, description="rows of `context` tokens per forward pass")
    shard_rows: Annotated[int, Field(ge=256, le=10**12)] = Field(
        65_536, description="activations per shard, on average"
    )
    buffer: Annotated[int, Field(ge=256, le=10**12)] | None = Field(
        None,
        description="training tokens of a round: rows are shuffled within rounds, in the order of "
        "the documents, and training reads round after round; null: one round of all",
    )
    keep: Literal["all", "buffer"] = Field(
        "all",
        description="training tokens on disk: all, or the first round, and while cells are trained "
        "one more, which is extracted again; both give the same bits",
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="CPU threads; another number gives other bits"
    )
    device: Device = Field("cpu", description="cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _hooks_once(self) -> Self:
        for name in ("hooks", "untrained_hooks", "embeddings_hooks"):
            hooks = getattr(self, name)
            if len(set(hooks)) < len(hooks):
                raise ValueError(f"{name} names one hook twice")
            for hook in hooks:
                list(each_layer(hook, 1))  # refuses what names no layers
        return self

    @model_validator(mode="after")
    def _rounds_of_tokens(self) -> Self:
        if self.keep == "buffer" and self.buffer is None:
            raise ValueError("keep = buffer: write how many tokens a round has, as buffer")
        if self.buffer is not None and self.pooling != "token":
            raise ValueError(f"buffer = {self.buffer}: rounds are of tokens; pooling must be token")
        return self

    def by_layer(self, n_layers: int | None) -> Self:
        """The same, each hook that stands for several layers replaced by those.

        `blocks.*.…` is left as it is where `n_layers` is None.
        """
        names = ("hooks", "untrained_hooks", "embeddings_hooks")
        each = {
            name: tuple(
                dict.fromkeys(
                    hook for named in getattr(self, name) for hook in each_layer(named, n_layers)
                )
            )
            for name in names
        }
        return self.model_copy(update=each)

    @property
    def all_hooks(self) -> tuple[str, ...]:
        """Every hook by its name in the store: `untrained/…` where weights are random."""
        return (
            *self.hooks,
            *(UNTRAINED + hook for hook in self.untrained_hooks),
            *(EMBEDDINGS + hook for hook in self.embeddings_hooks),
        )

    @property
    def model_hooks(self) -> tuple[str, ...]:
        """The model's own names of all of them, each once."""
        return tuple(dict.fromkeys((*self.hooks, *self.untrained_hooks, *self.embeddings_hooks)))
