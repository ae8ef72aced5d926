"""The spec file of a world: what its activations are made of, and which SAEs are tried on it.

`sae_repro.control.spec_world` draws from it. The generators of atoms, firing, hierarchy and
magnitudes are those of SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv:2602.14687), whose own
configuration a spec of `kind: sae_lens` holds as SAELens writes it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sae_repro.params.base import Count, Fraction, Many, Section
from sae_repro.params.validation import check_section
from sae_repro.params.yaml_files import read_yaml

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


class SaeLensWorld(Section):
    """A world of SAELens: its SyntheticModelConfig as its `to_dict` writes it."""

    kind: Literal["sae_lens"] = Field(description="SAELens's own format")
    config: dict[str, Any] = Field(description="num_features, hidden_dim, firing_probability, …")
    saes: Saes = Field(Saes(), description="what is tried on it")


def read_world(path: Path) -> World:
    """The world in the spec file at `path`; StudyError for what is no such file."""
    raw = read_yaml(path)
    if raw.get("kind") == "sae_lens":
        spec = check_section(SaeLensWorld, raw, source=str(path))
        converted = {**_of_sae_lens(spec.config, str(path)), "saes": raw.get("saes", {})}
        return check_section(World, converted, source=str(path), within="config")
    return check_section(World, raw, source=str(path))


class _Zipf(Section):
    generator_name: Literal["zipfian", "linear"] = "zipfian"
    max_prob: Probability = 0.3
    min_prob: Probability = 0.01
    exponent: Positive = 1.0


class _Magnitude(Section):
    generator_name: Literal["constant", "linear", "folded_normal"]
    value: Positive = 1.0
    start: Positive = 1.0
    end: Positive = 1.0
    mean: NotNegative = 0.0
    std: NotNegative = 0.1
    min_value: None = None
    max_value: None = None


class _Tree(Section):
    total_root_nodes: Few = 100
    branching_factor: Annotated[int, Field(ge=2)] = 100
    max_depth: Annotated[int, Field(ge=1)] = 2
    mutually_exclusive_portion: Fraction = 0.0
    mutually_exclusive_min_depth: Literal[0] = 0
    mutually_exclusive_max_depth: None = None
    compensate_probabilities: bool = False
    scale_children_by_parent: bool = False


class _LowRank(Section):
    rank: Few = 32
    correlation_scale: NotNegative = 0.1
    seed: int | None = None


class _Config(Section):
    num_features: int
    hidden_dim: int
    firing_probability: _Zipf = _Zipf()
    hierarchy: _Tree | None = None
    orthogonalization: dict[str, Any] | None = None
    correlation: _LowRank | None = None
    std_firing_magnitudes: float | _Magnitude = 0.0
    mean_firing_magnitudes: float | _Magnitude = 1.0
    bias: bool | float = 1.0
    dtype: Literal["float32"] = "float32"
    seed: int | None = None


def _of_sae_lens(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """The same in this format; the seed is the study's, and orthogonalisation is by ρ alone.

    StudyError for what this format has no word for.
    """
    config = check_section(_Config, raw, source=source, within="config")
    mean, spread = (
        value if isinstance(value, _Magnitude)
        else _Magnitude(generator_name="constant", value=value or 1e-6)
        for value in (config.mean_firing_magnitudes, config.std_firing_magnitudes)
    )  # fmt: skip
    linear = mean.generator_name == "linear"
    folded = spread.generator_name == "folded_normal"
    flat = config.std_firing_magnitudes == 0.0
    world: dict[str, Any] = {
        "atoms": config.num_features,
        "d_in": config.hidden_dim,
        "frequencies": {
            "kind": "zipf" if config.firing_probability.generator_name == "zipfian" else "linear",
            "highest": config.firing_probability.max_prob,
            "lowest": config.firing_probability.min_prob,
            "exponent": config.firing_probability.exponent,
        },
        "magnitudes": {
            "first": mean.start if linear else mean.value,
            "last": mean.end if linear else mean.value,
            "spread": 0.0 if flat else spread.mean if folded else spread.value,
            "spread_sd": spread.std if folded else 0.0,
        },
        "bias": float(config.bias),
    }
    if config.correlation is not None:
        low_rank = config.correlation
        world["correlation"] = {"rank": low_rank.rank, "scale": low_rank.correlation_scale}
    if config.hierarchy is not None:
        tree = config.hierarchy
        world["hierarchy"] = {
            "roots": tree.total_root_nodes,
            "branching": tree.branching_factor,
            "depth": tree.max_depth,
            "exclusive": tree.mutually_exclusive_portion,
            "compensated": tree.compensate_probabilities,
            "scaled": tree.scale_children_by_parent,
        }
    return world
