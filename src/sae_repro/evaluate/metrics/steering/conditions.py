"""Text that the model writes under each condition, all as strong as moves it by the same KL."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sae_repro.evaluate.first_pass import FirstPass, corpus_of
from sae_repro.evaluate.metrics.steering.choice import Choice, chosen
from sae_repro.evaluate.metrics.steering.grammar import CONCEPTS, Mask, words_of
from sae_repro.evaluate.metrics.steering.scene import WORDS, Scene
from sae_repro.evaluate.metrics.steering.table import (
    NO_LATENT,
    NO_OTHERS,
    UNREACHED,
    Outcome,
    Tally,
    row,
)
from sae_repro.numerics.random import generator
from sae_repro.steering import Intervention, edit_of, strength_at
from sae_repro.steering.interventions import Edit

if TYPE_CHECKING:
    import pandas as pd

KL = 0.3
"""Nats per token by which every condition moves the model's predictions."""
DRAWS = 3
"""Random directions, and random latents."""
START, LIMIT = 0.5, 64.0
"""Of strengths, in root mean square norms of the activations."""
LIMIT_GUIDED = 64.0
ROLES = ("current", "next")
"""A latent that fires on the concept's words, and one that fires before them."""


def unmeasured(reason: str) -> "pd.DataFrame":
    """The table of a cell whose latents can't be measured."""
    import pandas as pd

    return pd.DataFrame([row(reason=reason)])


def measured_rows(first_pass: FirstPass, scene: Scene) -> tuple["pd.DataFrame", list[Tally]]:
    """A row per concept, role and condition; and the words counted behind each."""
    import pandas as pd

    names = [name for concept in CONCEPTS for name in (concept, f"next:{concept}")]
    choice = chosen(first_pass, names, DRAWS, scene.name)
    tallies = [*_Study(first_pass, scene, choice).tallies()]
    seed = first_pass.study.seed
    return pd.DataFrame([tally.row(seed) for tally in tallies]), tallies


class _Study:
    """One SAE's conditions; what several concepts share is written once."""

    def __init__(self, first_pass: FirstPass, scene: Scene, choice: Choice) -> None:
        self._first_pass, self._scene, self._choice = first_pass, scene, choice
        self._rms = first_pass.store.rms(first_pass.hook)
        self._seed = first_pass.study.seed
        self._tokenizer = corpus_of(first_pass.study).tokenizer()

    def tallies(self) -> Iterator[Tally]:
        """Concept by concept, role by role."""
        scene, vocabulary = self._scene, int(self._scene.subject.cfg.d_vocab)
        unsteered = Outcome(0.0, 0.0, scene.unsteered())
        directions = [self._steered(partial(_added, self._direction(i))) for i in range(DRAWS)]
        latents = [self._steered(self._clamped(k)) for k in self._choice.random]
        for concept in CONCEPTS:
            words = words_of(concept, self._tokenizer, vocabulary)
            by_prompt = self._guided(words)
            for role in ROLES:
                label = concept if role == "current" else f"next:{concept}"
                latent = self._choice.latent.get(label)
                if latent is None:
                    yield self._tally(concept, role, "latent", [], words, None, NO_LATENT)
                    continue
                about: dict[str, Any] = {"latent": latent, "phi": self._choice.phi[label]}
                base = self._tally(concept, role, "unsteered", [unsteered], words, None)
                chance = self._tally(concept, role, "random direction", directions, words, base)
                yield base
                yield chance
                clamped = self._clamped(latent)
                means = partial(_added, self._choice.means[label])
                mine = [self._steered(clamped)]
                yield self._tally(concept, role, "latent", mine, words, chance, **about)
                for condition, outcomes in (
                    ("difference of means", [self._steered(means)]),
                    ("prompt", [by_prompt]),
                    ("random latent", latents),
                ):
                    missing = UNREACHED if outcomes else NO_OTHERS
                    yield self._tally(concept, role, condition, outcomes, words, chance, missing)
                zeroed = [self._zeroed(latent)]
                yield self._tally(concept, role, "latent set to 0", zeroed, words, base, **about)

    def _tally(
        self, concept: str, role: str, condition: str, outcomes: list[Outcome], words: Mask,
        against: Tally | None, missing: str = UNREACHED, **about: Any,
    ) -> Tally:  # fmt: skip
        wrote = [outcome for outcome in outcomes if outcome.written is not None]
        return Tally.of(
            concept, role, condition, wrote, words, self._scene.ends, against, about, missing
        )

    def _steered(self, edit_at: Callable[[float], Edit]) -> Outcome:
        scene, rms = self._scene, self._rms
        found = strength_at(
            lambda s: scene.kl(edit_at(s)), KL, start=START * rms, limit=LIMIT * rms
        )
        if found is None:
            return Outcome(None, None, None)
        return Outcome(*found, scene.written(edit_at(found[0])))

    def _guided(self, words: Mask) -> Outcome:
        """By a prompt: the class's most frequent words on the fit half, before the text."""
        bank, scene = self._first_pass.bank, self._scene
        count_v = np.bincount(bank.token[bank.fit], minlength=len(words))[: len(words)] * words
        often = np.argsort(-count_v, kind="stable")[:WORDS].tolist()
        found = strength_at(partial(scene.kl_guided, often), KL, start=1.0, limit=LIMIT_GUIDED)
        if found is None:
            return Outcome(None, None, None)
        return Outcome(*found, scene.written_guided(often, found[0]))

    def _zeroed(self, latent: int) -> Outcome:
        edit = edit_of(self._first_pass.sae, [Intervention(latent, "zero")])
        return Outcome(None, self._scene.kl(edit), self._scene.written(edit))

    def _clamped(self, latent: int) -> Callable[[float], Edit]:
        """By canonical activation a = z·‖d‖, so that strengths compare with those of directions."""
        sae = self._first_pass.sae
        norm = float(sae.weights.W_dec[latent].double().square().sum().sqrt()) or 1.0
        return lambda a: edit_of(sae, [Intervention(latent, "clamp", a / norm)])

    def _direction(self, number: int) -> Tensor:
        """A unit vector, uniform over directions."""
        rng = generator(self._seed, "steering", self._scene.name, "direction", number)
        vector = rng.standard_normal(self._first_pass.sae.d_in)
        unit = torch.from_numpy(vector / np.sqrt(np.square(vector).sum())).float()
        return unit.to(self._first_pass.study.settings.device)


def _added(direction: Tensor, strength: float) -> Edit:
    """The same vector at every position."""
    return lambda x_nd: (strength * direction).expand_as(x_nd)
