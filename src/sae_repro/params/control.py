"""Controls: the same autoencoders on data whose true atoms are known."""

from typing import Literal

from pydantic import Field

from sae_repro.params.base import Count, Many, Place, Section, Sha256


class WorldFile(Section):
    """The spec file of a world, pinned by its content; tables call the world by the file's name."""

    path: Place = Field(description="YAML, relative to params.yaml: see docs/worlds.md")
    sha256: Sha256 = Field(description="of the file (`sae-repro pin` fills it in)")


class Control(Section):
    """The same autoencoders on data whose true atoms are known: does the method work?"""

    worlds: Many[Literal["tree", "two_atoms", "oracle", "revival"] | WorldFile] = Field(
        ("tree", "two_atoms", "oracle", "revival"),
        description="synthetic activations to try: the toy tree, two atoms in the plane, a "
        "direction per labelled concept of the stories (skipped for other text), half of the "
        "latents dead from the start, or worlds of one's own, each from a spec file "
        "{path, sha256}; [] for none",
    )
    seeds: Count = Field(3, description="worlds and SAEs per recipe, each from a seed of its own")
    tree_steps: Count = Field(
        1400,
        description="training steps on the toy tree, batch 200",
    )
    oracle_steps: Count = Field(
        800,
        description="training steps on the oracle, batch 256; beyond 400 up to whole passes",
    )
    revival_steps: Count = Field(1200, description="training steps with half dead, batch 200")
