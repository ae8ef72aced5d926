"""One cell of the grid: one sparse autoencoder and how it is optimised.

An SAE is four independent choices: activation × penalty × prefixes × revival. A cell that sets a
field which its other choices leave unread is refused, so that no value in params.yaml is idle
(`params.cell_rules`). The fields are in the parts that `Cell` joins, in the order of its bases from
the last to the first.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from sae_repro.params import axes
from sae_repro.params.cell_code import CellCode
from sae_repro.params.cell_prefixes import CellPrefixes
from sae_repro.params.cell_revival import CellRevival
from sae_repro.params.cell_rules import faults
from sae_repro.params.cell_source import CellSource
from sae_repro.params.cell_training import CellTraining
from sae_repro.params.division import Divided

LR_OF_UNIT_ROWS = 0.08  # chosen by measurement: reports/benchmarks/defaults.md


class Cell(Divided, CellTraining, CellRevival, CellPrefixes, CellCode, CellSource):
    """An SAE of width K = expansion · D on one hook. Formulas: docs of `sae_repro.autoencoders`."""

    @model_validator(mode="after")
    def _four_axes_fit(self) -> Self:
        problems = list(faults(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def width(self, d_in: int) -> int:
        """K, the number of latents on activations of `d_in` dimensions."""
        return 2 * d_in if self.is_basis else int(self.expansion * d_in)

    @property
    def kind(self) -> Literal["trained", "imported", "baseline"]:
        """Origin of its SAE: trained here, imported, or a baseline (a negative control)."""
        if self.import_ is not None:
            return "imported"
        return "trained" if self.baseline is None else "baseline"

    @property
    def is_basis(self) -> bool:
        """Whether its latents are the two ends of D directions that are given, not learnt."""
        return self.baseline in ("neurons", "pca")

    def peak_lr(self, d_in: int) -> float:
        """Adam's peak learning rate on activations of `d_in` dimensions."""
        return self.lr if self.lr is not None else LR_OF_UNIT_ROWS / math.sqrt(d_in)

    def steps(self, batch_size: int, epochs: int, rows: int) -> int:
        """Training steps: whole batches of its `tokens`, or of `epochs` passes over `rows`."""
        if self.tokens is not None:
            return self.tokens // batch_size if rows >= batch_size else 0
        return epochs * (rows // batch_size)

    def members(self) -> dict[str, "Cell"]:
        """Its SAEs by their place in the cell's folder: `.`, or `seed-<n>` for each of `seeds`."""
        if self.seeds is None:
            return {".": self}
        return {
            f"seed-{seed}": self.model_copy(update={"seeds": None, "seed": seed})
            for seed in self.seeds
        }

    @property
    def subtracts_b_dec(self) -> bool:
        """Whether the encoder sees x − b_dec; a transcoder's b_dec lies among its targets."""
        return self.apply_b_dec_to_input and self.target_hook is None

    @property
    def l0_target(self) -> float | None:
        """The target L0, k or target_l0; None where λ alone decides."""
        return self.k if self.k is not None else self.target_l0

    @property
    def steered(self) -> bool:
        """Whether a controller moves λ to hold target_l0."""
        return self.target_l0 is not None and not self.penalty_row.needs_target_l0

    @property
    def resamples(self) -> bool:
        """Whether latents are resampled."""
        return self.revival_row.resamples

    @property
    def activation_row(self) -> axes.Activation:
        """The facts about its activation."""
        return axes.ACTIVATIONS[self.activation]

    @property
    def penalty_row(self) -> axes.Penalty:
        """The facts about its penalty."""
        return axes.PENALTIES[self.penalty]

    @property
    def prefixes_row(self) -> axes.Prefixes:
        """The facts about its prefixes."""
        return axes.PREFIXES[self.prefixes]

    @property
    def revival_row(self) -> axes.Revival:
        """The facts about its revival."""
        return axes.REVIVALS[self.revival]

    @property
    def repeats_published_code(self) -> bool:
        """Whether it is a published recipe, which may combine what is refused otherwise."""
        return self.prefixes_row.published or self.revival_row.published

    def identity(self) -> dict[str, Any]:
        """The choices that differ from the defaults: a new field with a default keeps it."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def saes_by_name(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """The SAEs of all cells, named as their cell or, of one with several seeds, cell/seed-<n>."""
    return {
        name if place == "." else f"{name}/{place}": sae
        for name, cell in cells.items()
        for place, sae in cell.members().items()
    }
