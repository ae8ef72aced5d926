"""The spec file of a world: what its activations are made of, and which SAEs are tried on it.

`sae_repro.control.spec_world` draws from it. The generators of atoms, firing, hierarchy and
magnitudes are those of SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv:2602.14687), whose own
configuration a spec of `kind: sae_lens` holds as SAELens writes it (`control.spec_files`).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Count, Fraction, Many, Section

Probability = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Few = Annotated[int, Field(ge=1, le=100_000)]
Width = Annotated[int, Field(ge=2, le=100_000)]

RecipeName = Literal[
    "vanilla",
    "topk",
    "batchtopk",
    "jumprelu",
    "gated",
    "matryoshka-random",
    "matryoshka-fixed",
    "matryoshka-batchtopk",
    "matryoshka-jumprelu",
    "matryoshka-gated",
    "frozen-decoder",
    "frozen-soft-decoder",
    "frozen-encoder",
]


class Frequencies(Section):
    """How often each atom is on, from the first to the last."""

    kind: Literal["zipf", "linear"] = Field(
        "zipf", description="fall from the first atom to the last: a power of the rank, or a line"
    )
    highest: Probability = Field(
        0.4, description="P(on) of the first atom; near 1 it is dense, on in nearly every row"
    )
    lowest: Probability = Field(5e-4, description="P(on) of the last atom")
    exponent: Positive = Field(0.5, description="zipf: the power of the rank")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.lowest > self.highest:
            raise ValueError(f"lowest {self.lowest:g} is above highest {self.highest:g}")
        return self


class Magnitudes(Section):
    """How large an atom's activation is where it is on: max(mean + spread · noise, 0)."""

    first: Positive = Field(1.0, description="mean of the first atom; in between, a line")
    last: Positive = Field(1.0, description="mean of the last atom")
    spread: NotNegative = Field(
        0.15, description="mean over atoms of the spread, before folding at 0"
    )
    spread_sd: NotNegative = Field(
        0.0, description="standard deviation over atoms of the spread: |N(spread, spread_sd)|"
    )
    noise: Literal["normal", "uniform", "exponential"] = Field(
        "normal", description="distribution of the noise, of mean 0 and standard deviation 1"
    )


class Correlation(Section):
    """Which atoms are on together: a Gaussian copula of low rank, cut at each atom's quantile."""

    rank: Few = Field(25, description="columns of the factor")
    scale: NotNegative = Field(0.1, description="standard deviation of the factor's entries")


class Hierarchy(Section):
    """Trees of atoms: a child is on only where its parent is. The first atoms are the roots."""

    roots: Few = Field(32, description="trees")
    branching: Annotated[int, Field(ge=2, le=1000)] = Field(4, description="children per parent")
    depth: Annotated[int, Field(ge=1, le=20)] = Field(3, description="levels below the roots")
    exclusive: Fraction = Field(
        1.0, description="fraction of the parents of whose children at most one is on at a time"
    )
    compensated: bool = Field(
        True,
        description="whether children fire more often given the parent, so that they are on about "
        "as often as frequencies says",
    )
    scaled: bool = Field(
        False, description="whether a child's activation is multiplied by its parent's over the "
        "parent's mean",
    )  # fmt: skip


class Circles(Section):
    """Manifolds beside the atoms: r (cos θ · u + sin θ · v), θ uniform; u and v orthonormal.

    Circular features as in Michaud, Gorton and McGrath 2025, arXiv:2509.02565.
    """

    count: Few = Field(1, description="circles, each in a plane of its own")
    frequency: Probability = Field(0.05, description="P(on) of each")
    radius: Positive = Field(1.0, description="its norm where it is on")


class Saes(Section):
    """The SAEs that are tried on the world, each recipe at each width and L0, for every seed."""

    recipes: Annotated[Many[RecipeName], Field(min_length=1)] = Field(
        ("vanilla", "topk", "batchtopk", "jumprelu", "gated", "matryoshka-random",
         "matryoshka-fixed", "matryoshka-batchtopk", "matryoshka-jumprelu", "matryoshka-gated",
         "frozen-decoder", "frozen-soft-decoder", "frozen-encoder"),
        description="architectures, and baselines of which a part stays as it was drawn",
    )  # fmt: skip
    widths: Annotated[Many[Width], Field(min_length=1)] | None = Field(
        None, description="latents; null: as many as atoms"
    )
    l0: Annotated[Many[Positive], Field(min_length=1)] = Field(
        (1.0,), description="L0 of the SAEs, in units of the world's own"
    )
    steps: Count = Field(800, description="training steps, every row seen once")
    batch_size: Annotated[int, Field(ge=16, le=100_000)] = Field(256, description="rows per step")


class World(Section):
    """A world: activations made of known atoms, and the SAEs that are tried on them."""

    kind: Literal["atoms"] = Field("atoms", description="this format; sae_lens: SAELens's own")
    atoms: Annotated[int, Field(ge=2, le=100_000)] = Field(1024, description="linear atoms")
    d_in: Annotated[int, Field(ge=2, le=10_000)] = Field(96, description="dimensions")
    superposition: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="ρ, mean over atoms of the largest |cosine| with another one; null: that of "
        "random directions, or 0 where the atoms fit into d_in dimensions",
    )
    frequencies: Frequencies = Field(Frequencies(), description="how often atoms are on")
    magnitudes: Magnitudes = Field(Magnitudes(), description="how large activations are")
    correlation: Correlation | None = Field(None, description="null: atoms are on independently")
    hierarchy: Hierarchy | None = Field(None, description="null: no atom is another's parent")
    circles: Circles | None = Field(None, description="null: no manifolds")
    noise: NotNegative = Field(0.0, description="standard deviation of noise, per dimension")
    bias: NotNegative = Field(0.0, description="norm of a vector added to every row")
    saes: Saes = Field(Saes(), description="what is tried on it")

    @property
    def parents(self) -> tuple[int, ...]:
        """The parent of each atom, −1 for none: level by level, as long as there are atoms."""
        parent_f = [-1] * self.atoms
        if self.hierarchy is None:
            return tuple(parent_f)
        level = range(min(self.hierarchy.roots, self.atoms))
        after = len(level)
        for _ in range(self.hierarchy.depth):
            first = after
            for parent in level:
                for _ in range(self.hierarchy.branching):
                    if after < self.atoms:
                        parent_f[after] = parent
                        after += 1
            level = range(first, after)
        return tuple(parent_f)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.hierarchy is not None and self.hierarchy.roots >= self.atoms:
            raise ValueError(f"hierarchy.roots: {self.hierarchy.roots} of {self.atoms} atoms")
        if self.circles is not None and 2 * self.circles.count > self.d_in:
            raise ValueError(
                f"circles.count: {self.circles.count} planes do not fit into {self.d_in} dimensions"
            )
        return self
