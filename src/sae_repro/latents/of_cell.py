"""The SAE of a cell by name, and what a study calls its latents."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.autoencoders import SAE, load
from sae_repro.contents import check, check_if_sealed
from sae_repro.errors import StudyError, did_you_mean, shown
from sae_repro.files import read_object
from sae_repro.judge.parsers import POLYSEMANTIC
from sae_repro.params import Cell, saes_by_name
from sae_repro.params.joint import is_joint

if TYPE_CHECKING:
    import pandas as pd

LONGEST_NAME = 40


@dataclass(frozen=True)
class CellSAE:
    """A trained SAE of a study."""

    name: str
    """`cell`, or `cell/seed-n`."""
    sae: SAE
    hook: str
    artifacts: Path

    @classmethod
    def of(cls, study: Path, cells: Mapping[str, Cell], name: str) -> "CellSAE":
        """The SAE `name` of a study's `cells`; of a cell with several seeds, the first.

        StudyError that lists near names where there is none, and where it is not trained.
        """
        artifacts = study / "artifacts"
        name = sae_name(cells, name)
        folder = artifacts / "train" / name
        if not (folder / "train.json").is_file():
            raise StudyError(f"{name}: not trained yet ({folder}: no SAE); run `dvc repro` first")
        check(folder)
        record = read_object(folder / "train.json")
        if record["status"] != "ok":
            raise StudyError(f"{name}: its training ended as {record['status']}; choose another")
        if is_joint(record["hook"]):
            raise StudyError(
                f"{name}: a crosscoder of {record['hook']}; texts are read and steered at one "
                "hook: choose a cell of one"
            )
        return cls(name, load(folder), str(record["hook"]), artifacts)

    def names(self, latents: Iterable[int]) -> dict[int, str]:
        """What each of `latents` is called: by the judge's label or explanation, else the concept
        that fits it best, with `?` where it is polysemantic, else the token of its largest
        activation, else `latent N`."""
        return {latent: self._name(latent) for latent in latents}

    def measured(self, latent: int) -> dict[str, float] | None:
        """Density and largest activation on held-out tokens; None before evaluation."""
        table = self._table("latents")
        if table is None:
            return None
        row = table[table["latent"] == latent]
        return {key: float(row[key].iloc[0]) for key in ("density", "max_activation")}

    def _name(self, latent: int) -> str:
        name = self._labels.get(latent) or self._concepts.get(latent) or self._tokens.get(latent)
        return shown(name, LONGEST_NAME) if name else f"latent {latent}"

    @cached_property
    def _labels(self) -> dict[int, str]:
        path = self.artifacts / "judge" / f"{self.name}.json"
        if not path.is_file():
            return {}
        check_if_sealed(self.artifacts / "judge", f"{self.name}.json")
        found: dict[str, Any] = read_object(path)
        labels = {each["latent"]: each["explanation"] for each in found.get("explained", ())}
        labels |= {int(latent): label for latent, label in found.get("labels", {}).items()}
        return {latent: label for latent, label in labels.items() if label != POLYSEMANTIC}

    @cached_property
    def _concepts(self) -> dict[int, str]:
        table = self._table("monosemantic")
        if table is None:
            return {}
        rows = table[table["concept"].notna()]
        return {
            int(latent): concept + "?" * (kind == "polysemantic")
            for latent, concept, kind in zip(
                rows["latent"], rows["concept"], rows["class"], strict=True
            )
        }

    @cached_property
    def _tokens(self) -> dict[int, str]:
        table = self._table("contexts")
        if table is None:
            return {}
        largest = table.sort_values(
            ["latent", "activation"], ascending=[True, False], kind="stable"
        ).drop_duplicates("latent")
        return {
            int(latent): f"on {token!r}"
            for latent, token in zip(largest["latent"], largest["token"], strict=True)
        }

    def _table(self, table: str) -> "pd.DataFrame | None":
        import pandas as pd

        folder = self.artifacts / "evaluate" / self.name
        path = folder / f"{table}.parquet"
        if not path.is_file():
            return None
        check_if_sealed(folder, path.name)
        return pd.read_parquet(path)


def sae_name(cells: Mapping[str, Cell], name: str) -> str:
    """The SAE that `name` means, a cell or one of its seeds; StudyError that lists near names."""
    saes = saes_by_name(cells)
    if name in saes:
        return name
    if name in cells:
        return next(iter(saes_by_name({name: cells[name]})))
    raise StudyError(
        f"{shown(name)}: no such cell; `sae-repro cells` lists them"
        f"{did_you_mean(name, [*cells, *saes])}"
    )
