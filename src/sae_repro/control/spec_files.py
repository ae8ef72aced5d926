"""Spec files of worlds, in the format of `params.worlds` or in SAELens's."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from sae_repro.params import Section, check_section, read_yaml
from sae_repro.params.base import Fraction
from sae_repro.params.worlds import Few, NotNegative, Positive, Probability, Saes, World


class _Foreign(BaseModel):
    """A part of SAELens's configuration, of which nothing is taken that has no word here."""

    model_config = Section.model_config


class _Zipf(_Foreign):
    generator_name: Literal["zipfian", "linear"] = "zipfian"
    max_prob: Probability = 0.3
    min_prob: Probability = 0.01
    exponent: Positive = 1.0


class _Magnitude(_Foreign):
    generator_name: Literal["constant", "linear", "folded_normal"]
    value: Positive = 1.0
    start: Positive = 1.0
    end: Positive = 1.0
    mean: NotNegative = 0.0
    std: NotNegative = 0.1
    min_value: None = None
    max_value: None = None


class _Tree(_Foreign):
    total_root_nodes: Few = 100
    branching_factor: Annotated[int, Field(ge=2)] = 100
    max_depth: Annotated[int, Field(ge=1)] = 2
    mutually_exclusive_portion: Fraction = 0.0
    mutually_exclusive_min_depth: Literal[0] = 0
    mutually_exclusive_max_depth: None = None
    compensate_probabilities: bool = False
    scale_children_by_parent: bool = False


class _LowRank(_Foreign):
    rank: Few = 32
    correlation_scale: NotNegative = 0.1
    seed: int | None = None


class _Config(_Foreign):
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


class SaeLensWorld(Section):
    """A world of SAELens: its SyntheticModelConfig as its `to_dict` writes it."""

    kind: Literal["sae_lens"] = Field(description="SAELens's own format")
    config: _Config = Field(description="num_features, hidden_dim, firing_probability, …")
    saes: Saes = Field(Saes(), description="what is tried on it")


def read_world(path: Path) -> World:
    """The world in the spec file at `path`; StudyError for what is no such file."""
    raw = read_yaml(path)
    if raw.get("kind") == "sae_lens":
        spec = check_section(SaeLensWorld, raw, source=str(path))
        converted = {**_of_sae_lens(spec.config), "saes": spec.saes.model_dump()}
        return check_section(World, converted, source=str(path), within="config")
    return check_section(World, raw, source=str(path))


def _of_sae_lens(config: _Config) -> dict[str, Any]:
    """The same in this format; the seed is the study's, and orthogonalisation is by ρ alone."""
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
