"""All cells of a study before the judge: labels and explanations first, then what scores these.

Each round goes to the backend as one list, so that an endpoint is asked for several cells at a time
and a progress bar knows its end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import load
from sae_repro.cellstore import members
from sae_repro.files import read_json
from sae_repro.judge.asking import Asked, Asker
from sae_repro.judge.backends import open_backend
from sae_repro.judge.cell import (
    Explained,
    Latents,
    agreement_part,
    latents_of,
    rates_part,
    scores_part,
)
from sae_repro.judge.parsers import Counts, parse_explanation, parse_label, read
from sae_repro.judge.questions import Answer, Backend, Question
from sae_repro.judge.rows import Rows, Texts, rows_of
from sae_repro.judge.truth import TextConcepts
from sae_repro.judge.windows import (
    BATCH,
    Floats,
    Material,
    activations,
    material,
    nearest,
)
from sae_repro.params import Judge
from sae_repro.readers.activations import ActivationStore
from sae_repro.readers.documents import TokenDocuments

KNOWN_SCORES = ("detection", "fuzzing")
"""What the text's own concepts can answer."""


@dataclass(frozen=True)
class Case:
    """An SAE with its material, before anything is asked."""

    name: str
    evaluated: Path
    latents: Latents
    materials: list[Material]


def judge_cells(
    names: Sequence[str], settings: Judge, seed: int, artifacts: Path, record: Path
) -> dict[str, dict[str, Any]]:
    """What the judge says of each SAE of the cells `names`: plain values, ready to be written.

    SAEs are named as their cell; where it has several, cell/seed-<n>. One that failed, and each
    where rows are whole documents, has a `reason` and no rates.
    """
    from sae_repro.numerics.determinism import prepare

    prepare(device=settings.device, threads=settings.threads)
    store = ActivationStore(artifacts / "extract")
    saes = [sae for name in names for sae in _saes(artifacts / "evaluate", name)]
    said = {sae: _status(artifacts / "evaluate" / sae, sae) for sae in saes}
    if store.manifest["pooling"] != "token":
        reason = "activations are means over documents: no token has one of its own"
        return {sae: {"reason": reason, **entry} for sae, entry in said.items()}
    corpus = TokenDocuments.load(artifacts / "corpus")
    index = store.index("validation").whole()
    rows = rows_of(index, corpus, settings.context_tokens, seed)
    truth = TextConcepts(corpus.folder, index, seed) if settings.kind == "concepts" else None
    backend = open_backend(settings, record=record, base=truth.base if truth else {})
    cases = [
        _case(sae, artifacts, store, rows, settings, seed)
        for sae in saes
        if said[sae]["status"] == "ok"
    ]
    asker = Asker(rows, Texts(rows, corpus), truth, settings, seed)
    parts = _judged(cases, asker, backend, settings, seed)
    return {sae: {**said[sae], **parts.get(sae, {})} for sae in saes}


def _saes(evaluated: Path, name: str) -> list[str]:
    return [name if place == "." else f"{name}/{place}" for place in members(evaluated / name)]


def _status(evaluated: Path, name: str) -> dict[str, Any]:
    measured = read_json(evaluated / "metrics.json")
    return {"cell": name, **{k: measured[k] for k in ("status", "reason") if k in measured}}


def _case(
    name: str, artifacts: Path, store: ActivationStore, rows: Rows, settings: Judge, seed: int
) -> Case:
    evaluated = artifacts / "evaluate" / name
    latents = latents_of(evaluated, rows, settings, seed)
    if not latents.explained:
        return Case(name, evaluated, latents, [])
    sae = load(artifacts / "train" / name, device=settings.device)
    hook = read_json(evaluated / "metrics.json")["hook"]
    near = nearest(sae, latents.explained, latents.alive_k)
    columns = sorted({k for k in (*latents.explained, *near) if k is not None})

    def batches() -> Iterator[Tensor]:
        for shard in store.activations(hook, "validation").batches(BATCH):
            # a copy: the shard is mapped read-only
            yield torch.from_numpy(np.array(shard, dtype=np.float32)).to(settings.device)

    a_nk = activations(sae, batches(), columns)

    def column(latent: int | None) -> Floats:
        if latent is None:
            return np.zeros(len(rows.order), dtype=np.float32)
        only = [columns.index(latent)]
        dense: Floats = a_nk[:, only].toarray()[rows.order, 0]
        return dense

    found = [
        material(latent, column(latent), column(other) > 0, rows, settings, seed)
        for latent, other in zip(latents.explained, near, strict=True)
    ]
    return Case(name, evaluated, latents, [m for m in found if m is not None])


def _judged(
    cases: Sequence[Case], asker: Asker, backend: Backend, settings: Judge, seed: int
) -> dict[str, dict[str, Any]]:
    labels = [[asker.label(c.latents.marks[k]) for k in c.latents.asked] for c in cases]
    explain = [[asker.explain(m) for m in c.materials] for c in cases]
    first = _ask(backend, labels + explain)
    described = [read(answers, parse_explanation) for answers in first[len(cases) :]]
    # what no judge could know is not asked: it stands in the out as not measured
    scores = [s for s in settings.scores if settings.kind != "concepts" or s in KNOWN_SCORES]
    tests: list[list[dict[str, list[Asked]]]] = [
        [
            {} if text is None else {score: asker.test(score, m, text) for score in scores}
            for m, text in zip(case.materials, texts, strict=True)
        ]
        for case, (texts, _) in zip(cases, described, strict=True)
    ]
    groups = [asked for of_case in tests for test in of_case for asked in test.values()]
    second = iter(_ask(backend, [[one.question for one in asked] for asked in groups]))
    parts: dict[str, dict[str, Any]] = {}
    for case, answers, (texts, counts), of_case in zip(
        cases, first[: len(cases)], described, tests, strict=True
    ):
        explained = [
            Explained(m, text, test, {score: next(second) for score in test})
            for m, text, test in zip(case.materials, texts, of_case, strict=True)
        ]
        parts[case.name] = _part(case, answers, explained, counts, settings, seed)
    return parts


def _ask(backend: Backend, groups: Sequence[Sequence[Question]]) -> list[list[Answer]]:
    """The answers to all groups of questions, in one go."""
    answers = iter(backend.answer([question for group in groups for question in group]))
    return [[next(answers) for _ in group] for group in groups]


def _part(
    case: Case,
    answers: Sequence[Answer],
    explained: Sequence[Explained],
    explanations: Counts,
    settings: Judge,
    seed: int,
) -> dict[str, Any]:
    latents = case.latents
    read_labels, counts = read(answers, parse_label)
    labels = dict(zip(latents.asked, read_labels, strict=True))
    scores, entries, by_score = scores_part(explained, settings, seed)
    return {
        "judge": settings.kind if settings.kind == "concepts" else settings.model,
        "counts": {
            "latents": len(latents.alive_k),
            "latents_alive": int(latents.alive_k.sum()),
            "latents_below_10_positives": latents.chosen.too_few,
            "latents_to_explain": len(latents.explained),
            "latents_in_one_half_only": len(latents.explained) - len(case.materials),
        },
        "rates": rates_part(latents, labels),
        "agreement": None
        if settings.kind == "concepts"
        else agreement_part(case.evaluated, latents, labels, seed),
        "scores": {score: scores.get(score) for score in settings.scores},
        "answers": {"label": asdict(counts), "explain": asdict(explanations), **by_score},
        "chosen": {name: getattr(latents.chosen, name) for name in ("top", "bottom", "uniform")},
        "labels": {str(latent): label for latent, label in labels.items()},
        "explained": entries,
    }
