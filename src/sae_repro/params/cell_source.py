"""The source of a cell: the hook it reads or where else its SAE comes from, width and seeds."""

from typing import Annotated, Literal

from pydantic import Field

from sae_repro.params.base import Many, Place, Section, Seed, Sha256, Text


class CellSource(Section):
    """The part of a cell that says what it reads, where its SAE comes from, and how wide it is."""

    hook: Text | None = Field(
        None,
        description="the hook whose activations it reads; default: the first of extract.hooks; "
        "blocks.0-5.… and blocks.0,2.… make a cell <name>-layer<n> for each layer",
    )
    hooks: Annotated[Many[Text], Field(min_length=2)] | None = Field(
        None,
        description="instead of hook, a crosscoder: the hooks whose activations it reads and "
        "reconstructs by one code, among extract.hooks, of any widths; D is the sum of these. "
        "blocks.0-5.… and blocks.0,2.… stand for each layer's",
    )
    target_hook: Text | None = Field(
        None,
        description="a transcoder: the hook whose activations it predicts from those of `hook`, "
        "instead of these themselves; among extract.hooks, of any width. b_dec and rows of W_dec "
        "lie there. With layers (blocks.0-3.…) in both, they make pairs, layer by layer",
    )
    skip: bool = Field(
        False, description="target_hook: adds x·W_skip, trained too and never penalised"
    )
    import_: Place | None = Field(
        None,
        alias="import",
        description="an SAE trained elsewhere instead: a folder (SAELens, dictionary_learning or "
        "sparsify), relative to params.yaml, or release:sae_id of SAELens; takes sha256 and hook "
        "beside it, nothing else",
    )
    sha256: Sha256 | None = Field(
        None, description="import: of that folder (`sae-repro pin` fills it in)"
    )
    baseline: Literal["neurons", "pca", "untrained"] | None = Field(
        None,
        description="no trained SAE but what one must beat: neurons (the model's own basis, each "
        "dimension above and below its mean), pca (principal directions, likewise; both K = 2 D, "
        "and take hook beside it, nothing else), or untrained (the SAE as training would find it "
        "at the start: takes what decides that, and nothing that only training reads)",
    )
    expansion: Annotated[float, Field(gt=0, le=1024)] = Field(
        1.0, description="K / D, latents per activation dimension; K is rounded down; required"
    )
    seed: Seed = Field(
        0, description="varies initial weights, data order, prefixes and resampling of this cell"
    )
    seeds: Annotated[Many[Seed], Field(min_length=2)] | None = Field(
        None,
        description="instead of seed: one SAE for each of these, the same as a cell of its own "
        "with that seed; tables show mean ± standard deviation over them",
    )
