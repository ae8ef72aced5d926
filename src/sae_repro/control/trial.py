"""Trials: a world's activations, SAEs trained on them as any cell, their measures."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sae_repro.autoencoders import SAE
from sae_repro.control import worlds
from sae_repro.control.held import HOOK, HeldStore
from sae_repro.control.measure import Matching, measure
from sae_repro.control.planned import Trial
from sae_repro.control.scores import scores
from sae_repro.control.settled import compared, has_settled, loss_change
from sae_repro.control.spec_trial import spec_drawing, spec_measures, spec_samples
from sae_repro.control.spec_world import Drawing
from sae_repro.control.stability import Learnt
from sae_repro.control.worlds import Atoms, Sample
from sae_repro.files import read_json
from sae_repro.numerics.determinism import prepare
from sae_repro.numerics.random import generator
from sae_repro.params import Train
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore
from sae_repro.training import Diverged, Trainer

HELD_OUT, CALIBRATION = 20_000, 20_000
SMALL, FAR = 0.01, 10.0
LOG_EVERY = 4  # enough rows to tell whether the loss has settled
PROGRESS_EVERY = 100
SHOWN = 64  # held-out rows kept for the heat maps


Outcome = tuple[dict[str, Any], Learnt | None]
"""The measures as JSON, or the reason of a failure; and the latents of what trained to its end."""


def carry_out(
    trials: Sequence[Trial], study_seed: int, corpus: Path, progress: Callable[[int], None]
) -> Iterator[Outcome]:
    """Train and measure each of `trials`, which have one world, one seed and the same rows.

    `progress` takes the steps of all so far.
    """
    prepare(device="cpu", threads=1)
    drawn = spec_drawing(trials[0], study_seed)
    if drawn is None:
        atoms, samples = make_world(trials[0], study_seed, corpus)
    else:
        atoms, samples = drawn.atoms, spec_samples(drawn, trials[0], study_seed)
    store = HeldStore(samples["train"].x_nd, samples["calibration"].x_nd)
    held_out = samples["held_out"]
    del samples  # the true activations of the rest
    done = 0
    with tempfile.TemporaryDirectory() as name:
        for number, trial in enumerate(trials):

            def report(steps: int, before: int = done) -> None:
                progress(before + steps)

            checkpoint = Path(name) / f"checkpoint-{number}"
            yield _try(trial, study_seed, store, atoms, drawn, held_out, checkpoint, report)
            done += trial.steps


def _try(
    trial: Trial,
    study_seed: int,
    store: ActivationStore,
    atoms: Atoms,
    drawn: Drawing | None,
    held_out: Sample,
    checkpoint: Path,
    progress: Callable[[int], None],
) -> Outcome:
    trainer = Trainer(
        trial.cell,
        Train(batch_size=trial.batch_size, epochs=trial.epochs, checkpoint_every=10**9),
        store, HOOK, seed=study_seed + trial.seed, checkpoint=checkpoint,
    )  # fmt: skip
    if trial.half_dead:
        silence_half(trainer)
    try:
        trained = trainer.run(progress, logs=_logged(trial))
    except Diverged as failure:
        return {"status": "failed", "reason": str(failure)}, None
    matching = measure(trained.sae, atoms, held_out)
    outcome, learnt = _outcome(trial, atoms, trained.sae, held_out, matching)
    if drawn is not None:
        outcome["summary"] |= spec_measures(trial, drawn, trained.sae, held_out, matching)
    change, error = loss_change(trained.journal.metrics, trial.steps, trial.cell.lr_decay)
    if not math.isnan(change):
        outcome["summary"] |= {"loss_change": change, "settled": has_settled(change, error)}
    return outcome, learnt


def _logged(trial: Trial) -> Callable[[int], bool]:
    """Where `loss_change` reads, and, as a row takes a good part of a small step, else seldom."""
    first, _, last = compared(trial.steps, trial.cell.lr_decay)
    return lambda step: step % (LOG_EVERY if first <= step < last else PROGRESS_EVERY) == 0


def silence_half(trainer: Trainer) -> None:
    """The first half of the latents can't fire: their bias is far below 0, or, where k are selected
    among latents, their encoder column so small that they are never selected."""
    half = trainer.weights.d_sae // 2
    with torch.no_grad():
        if trainer.cell.activation_row.l0_set_by == "k":
            trainer.weights.W_enc[:, :half] *= SMALL
        else:
            trainer.weights.b_enc[:half] = -FAR


def make_world(trial: Trial, seed: int, corpus: Path) -> tuple[Atoms, dict[str, Sample]]:
    """The world's atoms, and samples for training, calibration and measuring.

    Each seed draws its own, but for the oracle's atoms, which are those of the study: what one seed
    finds is looked for in another (`control.stability`). The trees of all seeds are one, turned.
    """
    sizes = {"train": trial.rows, "calibration": CALIBRATION, "held_out": HELD_OUT}

    def rng(*name: int | str) -> np.random.Generator:
        return generator(seed, "control", trial.world, trial.d_in, trial.seed, *name)

    match trial.world:
        case "tree":
            atoms = worlds.tree_atoms(trial.d_in, rng("atoms"))
            draw = worlds.tree_sample
        case "two_atoms":
            atoms, draw = worlds.two_atoms(rng("atoms")), worlds.two_atoms_sample
        case "sparse":
            atoms = worlds.sparse_atoms(trial.d_in, rng("atoms"))
            draw = worlds.sparse_sample
        case _:
            of_study = generator(seed, "control", trial.world, trial.d_in, "atoms")
            return _oracle(trial, sizes, corpus, of_study, rng)
    return atoms, {name: draw(atoms, n, rng(name)) for name, n in sizes.items()}


def _oracle(
    trial: Trial,
    sizes: dict[str, int],
    corpus: Path,
    of_study: np.random.Generator,
    rng: Callable[..., np.random.Generator],
) -> tuple[Atoms, dict[str, Sample]]:
    """Every labelled concept of the stories has a direction; held-out rows of other documents."""
    concepts: list[dict[str, Any]] = read_json(corpus / "concepts.json")
    names = tuple(concept["name"] for concept in concepts)
    number = {name: i for i, name in enumerate(names)}
    parent_f = np.array([number.get(concept["parent"], -1) for concept in concepts])
    atoms = worlds.oracle_atoms(names, parent_f, trial.d_in, of_study)
    split_of = {"train": "train", "calibration": "calibration", "held_out": "validation"}
    samples = {
        name: worlds.oracle_sample(
            atoms, labels(corpus, split_of[name], n, len(names), rng(name, "rows")), rng(name)
        )
        for name, n in sizes.items()
    }
    return atoms, samples


def labels(
    corpus: Path, split: str, n: int, width: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Concepts [n, width] of tokens drawn from the documents of `split`, repeats allowed."""
    packed = np.load(corpus / "labels.npy", mmap_mode="r", allow_pickle=False)
    documents = TokenDocuments.load(corpus).documents
    chosen = documents[documents["split"] == split]
    start, length = chosen["start"].to_numpy(), chosen["length"].to_numpy()
    token_rank = rng.integers(length.sum(), size=n)
    document = np.searchsorted(np.cumsum(length), token_rank, side="right")
    token = start[document] + token_rank - (np.cumsum(length) - length)[document]
    bits = np.unpackbits(packed[np.sort(token)], axis=1, count=width, bitorder="little")
    return bits[rng.permutation(n)].astype(bool)


def _outcome(
    trial: Trial, atoms: Atoms, sae: SAE, held_out: Sample, matching: Matching
) -> tuple[dict[str, Any], Learnt]:
    """The JSON of a trial that trained to its end, and its latents."""
    z_nk = matching.z_nk
    fires_k: npt.NDArray[np.bool_] = np.any(z_nk > 0, axis=0)
    outcome: dict[str, Any] = {
        "status": "ok",
        "summary": {
            **scores(z_nk, held_out.a_nf > 0, sae.weights.W_dec.numpy()),
            **matching.summary(atoms),
        },
        "atoms": [
            {
                "atom": name,
                "parent": atoms.names[parent] if parent >= 0 else None,
                "cosine": float(matching.cosine_f[i]),
                "precision": float(matching.precision_f[i]),
                "recall": float(matching.recall_f[i]),
                "f1": float(matching.f1_f[i]),
                "hole_rate": matching.hole_p.get(i),
                "childless_recall": matching.childless_recall_p.get(i),
            }
            for i, (name, parent) in enumerate(zip(atoms.names, atoms.parent_f, strict=True))
        ],
    }
    if trial.half_dead:
        half = len(fires_k) // 2
        outcome["summary"] |= {"revived_fraction": float(fires_k[:half].mean())}
    if trial.world == "tree" and trial.seed == 0:
        examples = np.flatnonzero(held_out.a_nf.sum(1))[:SHOWN]
        matched = matching.match_f >= 0
        z_nf = np.where(matched, z_nk[examples][:, matching.match_f], 0.0)
        rows = np.where(matched[:, None], sae.weights.W_dec.numpy()[matching.match_f], 0.0)
        outcome["heat"] = {
            "true": held_out.a_nf[examples].tolist(),
            "learnt": z_nf.tolist(),
            "cosines": worlds.cosines(atoms.directions_fd, rows).tolist(),
        }
    learnt = Learnt.of(sae, fires_k, matching)
    return outcome, learnt.along(atoms.directions_fd) if trial.world == "tree" else learnt
