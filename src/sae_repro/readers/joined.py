"""Activations of several hooks side by side, read as if they were those of one.

    store = JoinedStore(folder)
    store.activations("blocks.0.hook_resid_post + blocks.1.hook_resid_post", "train")   # [N, ΣD_h]

The shards of all hooks hold the same tokens in the same order; they are put side by side as they
are read, in memory, a shard at a time.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sae_repro.errors import StudyError
from sae_repro.files import digest
from sae_repro.params.joint import hooks_in
from sae_repro.readers.shards import ActivationStore, FloatArray, Shards


@dataclass(frozen=True)
class JoinedShards(Shards):
    """One split of several hooks, rows [N, ΣD_h]; the entries are the first hook's."""

    others: tuple[Shards, ...] = ()
    levels: tuple[float, ...] = ()
    """By which each hook's rows are multiplied; (): they are as they are."""

    @property
    def checksum(self) -> str:
        """SHA-256 over the checksums of all hooks, in their order."""
        return digest([super().checksum, *(shards.checksum for shards in self.others)])

    def first_round(self) -> Self:
        """The shards of the first round, of all hooks."""
        others = tuple(shards.first_round() for shards in self.others)
        return replace(super().first_round(), others=others)

    def load(self, number: int) -> npt.NDArray[Any]:
        """Shard `number` of all hooks, in memory, their checksums verified."""
        parts = [super().load(number), *(shards.load(number) for shards in self.others)]
        if self.levels:
            parts = [
                part.astype(np.float32) * np.float32(level)
                for part, level in zip(parts, self.levels, strict=True)
            ]
        return np.concatenate(parts, axis=1)


def widths_of(store: ActivationStore, hook: str) -> tuple[int, ...]:
    """D_h of each hook in `hook`; one for a hook's own name."""
    return tuple(store.d_in(one) for one in hooks_in(hook))


class JoinedStore(ActivationStore):
    """Reader of artifacts/extract that also takes the names of hooks side by side.

    Of one hook everything is as `ActivationStore` has it.
    """

    def d_in(self, hook: str) -> int:
        """Σ D_h."""
        return sum(super(JoinedStore, self).d_in(one) for one in hooks_in(hook))

    def rms(self, hook: str) -> float:
        """√(E‖x‖²) over the training rows, x of all hooks side by side."""
        return _root_of_squares([super(JoinedStore, self).rms(one) for one in hooks_in(hook)])

    def median_norm(self, hook: str) -> float:
        """Median of ‖x‖ over the training rows; of several hooks √(Σ_h median²), near it.

        A hook of which the median is 0 counts with its root mean square.
        """
        if len(hooks_in(hook)) == 1:
            return super().median_norm(hook)
        each = [(super(JoinedStore, self).median_norm(one), one) for one in hooks_in(hook)]
        return _root_of_squares([norm or super(JoinedStore, self).rms(one) for norm, one in each])

    def norm_limit(self, hook: str) -> float | None:
        """The norm beyond which a token was left out at the hook; None for several."""
        return super().norm_limit(hook) if len(hooks_in(hook)) == 1 else None

    def mean(self, hook: str) -> FloatArray:
        """E x over the training rows, float64 [ΣD_h]."""
        return np.concatenate([super(JoinedStore, self).mean(one) for one in hooks_in(hook)])

    def activations(self, hook: str, split: str) -> Shards:
        """The activations [rows, ΣD_h] in `split`; StudyError where hooks have other rows."""
        first, *others = (
            super(JoinedStore, self).activations(one, split) for one in hooks_in(hook)
        )
        if not others:
            return first
        rows = [entry["rows"] for entry in first.entries]
        for one, shards in zip(hooks_in(hook)[1:], others, strict=True):
            if [entry["rows"] for entry in shards.entries] != rows:
                raise StudyError(
                    f"hooks: the {split} shards of {one} have other numbers of rows than those of "
                    f"{hooks_in(hook)[0]}; extract both hooks together"
                )
        return JoinedShards(first.folder, first.entries, first.rolling, others=tuple(others))


class LevelledStore(JoinedStore):
    """The same, hooks side by side brought to one loudness: what crosscoders are measured on.

    Each hook is multiplied by `levels`, as `normalisation: expected_norm` has it in training, so
    that no hook outweighs the others by the norm of its activations alone.
    """

    def levels(self, hook: str) -> tuple[float, ...]:
        """The factor of each hook in `hook`: its median norm becomes c·√D_h, the same c for all.

        c leaves the norm of all hooks together as it is; 1 for one hook, and for one that is 0.
        """
        hooks = hooks_in(hook)
        if len(hooks) == 1:
            return (1.0,)
        common = self.median_norm(hook) / math.sqrt(self.d_in(hook))
        norms = [self.median_norm(one) or JoinedStore.rms(self, one) for one in hooks]
        return tuple(
            common * math.sqrt(self.d_in(one)) / norm if norm else 1.0
            for one, norm in zip(hooks, norms, strict=True)
        )

    def rms(self, hook: str) -> float:
        """√(E‖x‖²) over the training rows, of one loudness."""
        each = zip(self.levels(hook), hooks_in(hook), strict=True)
        return _root_of_squares([level * JoinedStore.rms(self, one) for level, one in each])

    def mean(self, hook: str) -> FloatArray:
        """E x over the training rows, float64 [ΣD_h]."""
        mean: FloatArray = super().mean(hook)
        scaled: FloatArray = mean * np.repeat(np.array(self.levels(hook)), widths_of(self, hook))
        return scaled

    def activations(self, hook: str, split: str) -> Shards:
        """The activations [rows, ΣD_h] in `split`, of one loudness."""
        shards = super().activations(hook, split)
        if isinstance(shards, JoinedShards):
            return replace(shards, levels=self.levels(hook))
        return shards


def _root_of_squares(values: list[float]) -> float:
    """√Σ v²; of one value itself, to the bit."""
    return values[0] if len(values) == 1 else math.sqrt(sum(v * v for v in values))
