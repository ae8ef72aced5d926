"""Judging of all cells of a study: labels and explanations first, then the scores of these.

Each round goes to the backend as one list, so that an endpoint gets questions on several SAEs at a
time, and a progress bar knows its end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_repro.autoencoders import levelled, load
from sae_repro.files import read_json
from sae_repro.judge.backends import open_backend
from sae_repro.judge.cell_results import ExplainedLatent, agreement, rates, score_results
from sae_repro.judge.ground_truth import TokenConcepts
from sae_repro.judge.held_out_tokens import HeldOutTokens, WindowTexts, held_out_tokens
from sae_repro.judge.latent_activations import BATCH, activations, nearest
from sae_repro.judge.latent_selection import SelectedLatents, selected_latents
from sae_repro.judge.latent_windows import Floats, LatentWindows, draw_windows
from sae_repro.judge.parsers import Counts, parse_explanation, parse_label, read
from sae_repro.judge.prompts import load_prompts
from sae_repro.judge.protocol import Answer, Backend, Question
from sae_repro.judge.questions import QuestionMaker
from sae_repro.judge.scores import SCORES, ScoringQuestion
from sae_repro.params import Cell, Judge, saes_by_name
from sae_repro.pins import PinnedFile
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.joined import LevelledStore
from sae_repro.readers.shards import GIVEN_ROWS


@dataclass(frozen=True)
class Case:
    """An SAE with its windows, before anything is asked."""

    name: str
    evaluated: Path
    latents: SelectedLatents
    windows: list[LatentWindows]


def judge_cells(
    cells: Mapping[str, Cell],
    settings: Judge,
    seed: int,
    study: Path,
    record: Path,
    spans: PinnedFile | None = None,
) -> dict[str, dict[str, Any]]:
    """The results of each SAE of `cells`: plain values, ready to be written.

    SAEs are named as their cell; where it has several, cell/seed-<n>. One that failed, and each
    where rows are whole documents, has a `reason` and no results. `study` holds params.yaml and
    artifacts, `record` the recorded answers, `spans` the study's own concept labels.
    """
    from sae_repro.numerics.determinism import prepare

    prepare(device=settings.device, threads=settings.threads)
    artifacts = study / "artifacts"
    store = LevelledStore(artifacts / "extract")
    states = {sae: _state(artifacts / "evaluate" / sae, sae) for sae in saes_by_name(cells)}
    if store.manifest["pooling"] != "token":
        reason = (
            "activations were given: no language model, and no text to explain latents by"
            if store.manifest["pooling"] == GIVEN_ROWS
            else "activations are means over documents: no token has one of its own"
        )
        return {sae: {"reason": reason, **state} for sae, state in states.items()}
    corpus = TokenDocuments.load(artifacts / "corpus")
    index = store.index("validation").whole()
    tokens = held_out_tokens(index, corpus, settings.context_tokens, seed)
    concepts = (
        TokenConcepts(corpus.folder, index, seed, spans) if settings.kind == "concepts" else None
    )
    base_rates = concepts.base_rates if concepts else {}
    backend = open_backend(settings, record=record, base_rates=base_rates)
    prompts = load_prompts(settings, study)
    cases = [
        _case(sae, artifacts, store, tokens, settings, seed)
        for sae, state in states.items()
        if state["status"] == "ok"
    ]
    texts = WindowTexts(tokens, corpus)
    maker = QuestionMaker(tokens, texts, concepts, prompts, settings, seed)
    results = _results(cases, maker, backend, settings, seed)
    return {sae: {**state, **results.get(sae, {})} for sae, state in states.items()}


def _state(evaluated: Path, name: str) -> dict[str, Any]:
    measured = read_json(evaluated / "metrics.json")
    return {"cell": name, **{k: measured[k] for k in ("status", "reason") if k in measured}}


def _case(
    name: str,
    artifacts: Path,
    store: LevelledStore,
    tokens: HeldOutTokens,
    settings: Judge,
    seed: int,
) -> Case:
    evaluated = artifacts / "evaluate" / name
    latents = selected_latents(evaluated, tokens, settings, seed)
    if not latents.explained:
        return Case(name, evaluated, latents, [])
    hook = read_json(evaluated / "metrics.json")["hook"]
    trained = load(artifacts / "train" / name, device=settings.device)
    sae = levelled(trained, store.levels(hook))
    neighbours = nearest(sae, latents.explained, latents.alive_k)
    columns = sorted({k for k in (*latents.explained, *neighbours) if k is not None})

    def batches() -> Iterator[Tensor]:
        for shard in store.activations(hook, "validation").batches(BATCH):
            # a copy: the shard is mapped read-only
            yield torch.from_numpy(np.array(shard, dtype=np.float32)).to(settings.device)

    a_nk = activations(sae, batches(), columns)

    def column(latent: int | None) -> Floats:
        if latent is None:
            return np.zeros(len(tokens.order), dtype=np.float32)
        only = [columns.index(latent)]
        dense: Floats = a_nk[:, only].toarray()[tokens.order, 0]
        return dense

    windows = [
        draw_windows(latent, column(latent), column(neighbour) > 0, tokens, settings, seed)
        for latent, neighbour in zip(latents.explained, neighbours, strict=True)
    ]
    return Case(name, evaluated, latents, [w for w in windows if w is not None])


def _results(
    cases: Sequence[Case], maker: QuestionMaker, backend: Backend, settings: Judge, seed: int
) -> dict[str, dict[str, Any]]:
    labels = [[maker.label(c.latents.marks[k]) for k in c.latents.selection.all] for c in cases]
    explain = [[maker.explain(windows) for windows in c.windows] for c in cases]
    first = _ask(backend, labels + explain)
    described = [read(answers, parse_explanation) for answers in first[len(cases) :]]
    questions = [
        [
            {} if explanation is None else _scoring(maker, windows, explanation, settings)
            for windows, explanation in zip(case.windows, explanations, strict=True)
        ]
        for case, (explanations, _) in zip(cases, described, strict=True)
    ]
    groups = [group for of_case in questions for latent in of_case for group in latent.values()]
    second = iter(_ask(backend, [[one.question for one in group] for group in groups]))
    results: dict[str, dict[str, Any]] = {}
    for case, answers, (explanations, counts), of_case in zip(
        cases, first[: len(cases)], described, questions, strict=True
    ):
        explained = [
            ExplainedLatent(
                windows, explanation, questions_of, {score: next(second) for score in questions_of}
            )
            for windows, explanation, questions_of in zip(
                case.windows, explanations, of_case, strict=True
            )
        ]
        results[case.name] = _result(case, answers, explained, counts, settings, seed)
    return results


def _scoring(
    maker: QuestionMaker, windows: LatentWindows, explanation: str, settings: Judge
) -> dict[str, list[ScoringQuestion]]:
    """The questions of each score; scores that the concepts can't answer are not measured."""
    rows = {name: SCORES[name] for name in settings.scores}
    return {
        name: row.questions(maker, row.prompt, windows, explanation)
        for name, row in rows.items()
        if row.known_to_concepts or settings.kind != "concepts"
    }


def _ask(backend: Backend, groups: Sequence[Sequence[Question]]) -> list[list[Answer]]:
    """The answers to all groups of questions, in one go."""
    answers = iter(backend.answer([question for group in groups for question in group]))
    return [[next(answers) for _ in group] for group in groups]


def _result(
    case: Case,
    answers: Sequence[Answer],
    explained: Sequence[ExplainedLatent],
    explanations: Counts,
    settings: Judge,
    seed: int,
) -> dict[str, Any]:
    latents = case.latents
    selection = latents.selection
    parsed, counts = read(answers, parse_label)
    labels = dict(zip(selection.all, parsed, strict=True))
    summaries, entries, by_score = score_results(explained, settings, seed)
    return {
        "judge": settings.kind if settings.kind == "concepts" else settings.model,
        "counts": {
            "latents": len(latents.alive_k),
            "latents_alive": int(latents.alive_k.sum()),
            "latents_below_10_positives": selection.too_few,
            "latents_to_explain": len(latents.explained),
            "latents_in_one_half_only": len(latents.explained) - len(case.windows),
        },
        "rates": rates(latents, labels),
        "agreement": None
        if settings.kind == "concepts"
        else agreement(case.evaluated, latents, labels, seed),
        "scores": {score: summaries.get(score) for score in settings.scores},
        "answers": {"label": asdict(counts), "explain": asdict(explanations), **by_score},
        "chosen": {name: getattr(selection, name) for name in ("top", "bottom", "uniform")},
        "labels": {str(latent): label for latent, label in labels.items()},
        "explained": entries,
    }
