"""One prompt, continued with and without interventions on latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sae_repro.errors import StudyError
from sae_repro.latents.of_cell import CellSAE
from sae_repro.latents.reading import TextReader
from sae_repro.numerics.random import generator
from sae_repro.steering import (
    Intervention,
    continued,
    divergence,
    edit_of,
    edited,
    output_score,
    predictions,
    promoted_tokens,
)


@dataclass(frozen=True)
class Effect:
    """What an atom promotes by itself, and how much steering promoted it."""

    latent: int
    promoted: list[str]
    score: float | None
    """See `sae_repro.steering.output_score`; None where the model has no logit lens."""


@dataclass(frozen=True)
class SteeredText:
    """A prompt's continuations; neither holds what follows an end of text."""

    prompt: str
    unsteered: str
    steered: str
    kl: float
    """KL(unsteered ‖ steered) in nats: the mean over the positions of the unsteered text."""
    positions: int
    effects: list[Effect]


@dataclass(frozen=True)
class Sampling:
    """The likeliest tokens at `temperature` 0; else drawn, both texts by the same numbers."""

    tokens: int = 40
    temperature: float = 0.0
    seed: int = 0


def steered_text(
    cell: CellSAE,
    reader: TextReader,
    prompt: str,
    interventions: Sequence[Intervention],
    sampling: Sampling,
    progress: Callable[[int], Any] | None = None,
) -> SteeredText:
    """`prompt` continued by the subject as it is, and with `interventions` at every position but
    its row's first.

    `progress` is called with each token that is written, 2 × `sampling.tokens` in all. StudyError,
    before the model is loaded, for latents that the SAE has not, and a prompt without tokens;
    before it writes, where prompt and continuation are longer than the model's context.
    """
    edit = edit_of(cell.sae, interventions)
    ids = reader.ids(prompt)
    row = [*([] if reader.start is None else [reader.start]), *ids]
    subject = reader.subject
    _check_room(int(subject.cfg.n_ctx), len(row), sampling.tokens)
    uniform = generator(sampling.seed, "steer").random((1, sampling.tokens))

    def write() -> torch.Tensor:
        return continued(
            subject, torch.tensor([row]), sampling.tokens, temperature=sampling.temperature,
            uniform_nt=uniform, progress=progress,
        )  # fmt: skip

    def steering() -> Any:
        return edited(subject, reader.place, edit, norm_limit=reader.norm_limit)

    unsteered = _to_its_end(write(), len(row), reader)
    with steering():
        steered = _to_its_end(write(), len(row), reader)
        moved = predictions(subject, unsteered)[0]
    clean = predictions(subject, unsteered)[0]
    return SteeredText(
        prompt=reader.text(ids),
        unsteered=reader.text(unsteered[0, len(row) :].tolist()),
        steered=reader.text(steered[0, len(row) :].tolist()),
        kl=float(divergence(clean, moved).mean()),
        positions=len(clean),
        effects=[_effect(cell, reader, each.latent, clean, moved) for each in interventions],
    )


def _effect(
    cell: CellSAE, reader: TextReader, latent: int, clean: torch.Tensor, moved: torch.Tensor
) -> Effect:
    promoted = promoted_tokens(reader.subject, cell.sae, latent)
    score = output_score(clean, moved, promoted) if promoted else None
    return Effect(latent, reader.spelled(promoted), score)


def _to_its_end(row_nl: torch.Tensor, prompt: int, reader: TextReader) -> torch.Tensor:
    """`row_nl` [1, L] up to the first end of text behind the prompt's tokens."""
    ends = {reader.tokenizer.eos_token_id, reader.tokenizer.bos_token_id}
    written = row_nl[0, prompt:].tolist()
    length = next((i for i, token in enumerate(written) if token in ends), len(written))
    return row_nl[:, : prompt + length]


def _check_room(context: int, prompt: int, tokens: int) -> None:
    room = context - prompt
    if room < 1:
        raise StudyError(
            f"the prompt fills {prompt} of the model's {context} positions; give a shorter one"
        )
    if tokens > room:
        raise StudyError(
            f"--tokens {tokens}: behind the prompt the model has {room} positions left of "
            f"{context}; ask for at most {room}"
        )
