"""The stage as a whole: a real endpoint, its record, the truth; what is written and what is not."""

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import pandas as pd
import pytest

from sae_repro.contents import CONTENTS, seal
from sae_repro.errors import StudyError
from sae_repro.files import read_json, sha256_file, sha256_folder, write_json
from sae_repro.judge import prompts, run
from sae_repro.judge.judging import judge_cells
from sae_repro.judge.scores import SCORES, Score, ScoringQuestion
from sae_repro.numerics.intervals import wilson
from sae_repro.params import ANSWERS, SCORE_INFO, Cell, Judge
from sae_repro.params.judge import Score as ScoreName
from sae_repro.readers.documents import TokenDocuments
from sae_repro.readers.shards import ActivationStore
from sae_repro.stage import StageContext

from .conftest import KEY, Endpoint, Response, completion
from .small import HOOK, NAMES, make_activations, make_study

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "extremes": 3,
    "uniform": 6,
    "latents": 3,
    "contexts_per_quantile": 1,
    "quantiles": 4,
}
SCORES_TRIED = [*SCORES]
CELLS = ["clean", "mixed", "lost"]
CELL = {"expansion": 1, "activation": "topk", "k": 4}
"""Any cell: the judge reads its seeds alone."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the small study, as the working folder."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


def context(
    cells: dict[str, Any], settings: dict[str, Any], concepts: dict[str, str] | None = None
) -> StageContext:
    sections = {"judge": {**SMALL, **settings}, "evaluate": {"concepts": concepts}}
    return StageContext("judge", {"seed": 0, "recipes": {}, "cells": cells, **sections})


def judge(
    cells: list[str] = CELLS, concepts: dict[str, str] | None = None, **settings: Any
) -> dict[str, Any]:
    """Run the stage; the results by cell."""
    run(context(dict.fromkeys(cells, CELL), settings, concepts))
    return {name: read_json(Path(f"artifacts/judge/{name}.json")) for name in cells}


def http(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "kind": "http", "model": "some-model", "base_url": endpoint.url, "key_env": "JUDGE_KEY",
        "requests_per_minute": 600_000, "in_flight": 4, "scores": SCORES_TRIED,
    }  # fmt: skip


def answering(_: int, prompt: str) -> Response:
    """A judge of a kind: labels, explanations and numbers, and now and then nonsense."""
    words = re.findall(r"<<\s*([a-zA-Z]+)", prompt)
    listed = re.search(r"a list of (\d+)", prompt)
    if listed and "0 to 10" in prompt:
        return completion(str([len(line) % 11 for line in prompt.split("\n")[: int(listed[1])]]))
    if listed:
        return completion(str([i % 2 for i in range(int(listed[1]))]))
    if "0 to 3" in prompt:
        return completion(str(len(prompt) % 5))
    if "POLYSEMANTIC" in prompt:
        return completion("POLYSEMANTIC" if len(set(words)) > 10 else f"the word {words[0]}")
    return completion("explained as\nnothing" if len(prompt) % 7 == 0 else "a word like that")


def test_replay_without_a_server_or_a_key_writes_the_same_bytes(
    study: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.script = answering
    settings = http(endpoint)
    first = judge(**settings)
    requests, digest, record = len(endpoint.prompts), sha256_folder(study / "artifacts/judge"), (
        study / ANSWERS
    ).read_bytes()  # fmt: skip
    assert requests == record.count(b"\n") > 30
    assert judge(**settings) == first
    assert len(endpoint.prompts) == requests, "nothing is asked twice"
    endpoint.close()
    monkeypatch.delenv("JUDGE_KEY")
    shutil.rmtree(study / "artifacts/judge")
    assert judge(**{**settings, "kind": "replay"}) == first
    assert sha256_folder(study / "artifacts/judge") == digest
    assert (study / ANSWERS).read_bytes() == record
    scores = first["clean"]["scores"]
    assert all(scores[name] for name in SCORES_TRIED)
    assert first["clean"]["agreement"]["latents"] > 0
    assert first["clean"]["judge"] == "some-model"
    parsed = first["clean"]["answers"]["specificity"]
    assert parsed["unparsable"] > 0
    assert scores["specificity"]["unparsable"] == parsed["unparsable"]


def test_another_cell_requests_only_its_own_answers(
    finished: Path, study: Path, endpoint: Endpoint
) -> None:
    endpoint.script = answering
    judge(["clean"], **http(endpoint))
    alone = len(endpoint.prompts)
    shutil.copytree(finished / "artifacts", study / "artifacts", dirs_exist_ok=True)
    judge(["clean", "mixed"], **http(endpoint))
    record = (study / ANSWERS).read_bytes()
    assert alone < len(endpoint.prompts) == record.count(b"\n") < 2 * alone
    shutil.rmtree(study / "judge")
    endpoint.prompts.clear()
    judge(["mixed", "clean"], **http(endpoint))
    assert (study / ANSWERS).read_bytes() == record, "whatever the order"


def test_replay_names_the_number_of_missing_answers(study: Path) -> None:
    with pytest.raises(StudyError, match=r"answers\.jsonl: \d+ of \d+ answers of m are missing"):
        judge(kind="replay", model="m")


def test_the_key_is_in_nothing_that_is_written(
    study: Path,
    endpoint: Endpoint,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Not even where the judge repeats it in every label, explanation and error."""
    caplog.set_level(logging.DEBUG)
    endpoint.script = lambda n, prompt: (
        completion(f"{KEY} and words") if n else Response(500, f"bad key {KEY}".encode())
    )
    judge(**http(endpoint))
    assert endpoint.authorizations[0] == f"Bearer {KEY}"
    files = [p for p in study.rglob("*") if p.is_file()]
    assert study / ANSWERS in files
    assert b"[key] and words" in (study / ANSWERS).read_bytes()
    assert "[key] and words" in (study / "artifacts/judge/clean.json").read_text()
    assert not [p for p in files if KEY[:12].encode() in p.read_bytes()]
    assert KEY[:12] not in caplog.text + "".join(capfd.readouterr())


def test_concepts_label_latents_that_fire_on_one_concept(study: Path) -> None:
    results = judge()
    labels = results["clean"]["labels"]
    assert labels == {str(k): name for k, name in enumerate([*NAMES, "POLYSEMANTIC"])}
    rates = results["clean"]["rates"]
    assert rates["extremes"]["answered"] == 6, "three at each end: all that can be ranked"
    assert rates["extremes"]["interval"] == list(wilson(rates["extremes"]["labelled"], 6))
    assert results["mixed"]["labels"]["0"] == "POLYSEMANTIC"
    assert results["clean"]["judge"] == "concepts"
    assert results["clean"]["agreement"] is None
    for entry in results["clean"]["explained"]:
        if entry["latent"] < len(NAMES):
            assert entry["explanation"] == NAMES[entry["latent"]]
            assert entry["fuzzing"]["balanced_accuracy"] == 1.0
    assert (study / ANSWERS).read_bytes() == b"\n", "DVC warns of a file without a byte"


def test_nothing_depends_on_the_order_in_which_rows_are_stored(study: Path) -> None:
    first = judge(["clean"])
    shutil.rmtree(study / "artifacts/extract")
    corpus = TokenDocuments.load(study / "artifacts/corpus")
    make_activations(study / "artifacts/extract", corpus, shuffled=True)
    assert judge(["clean"]) == first


def test_scores_without_ground_truth_are_not_measured(study: Path) -> None:
    results = judge(["clean"], scores=SCORES_TRIED)["clean"]["scores"]
    assert results["simulation"] is results["specificity"] is None
    assert results["fuzzing"]["latents"] == 3
    assert judge(["clean"], scores=[])["clean"]["explained"] == []


def test_failed_cells_and_whole_documents_have_a_reason(study: Path) -> None:
    assert judge()["lost"] == {"cell": "lost", "status": "failed", "reason": "collapsed"}
    path = study / "artifacts/extract/manifest.json"
    write_json(path, {**read_json(path), "pooling": "document_mean"})
    seal(path.parent)
    results = judge()
    assert set(results["clean"]) == {"cell", "status", "reason"}
    assert "means over documents" in results["clean"]["reason"]
    assert results["lost"]["reason"] == "collapsed"


def test_each_seed_of_a_cell_is_judged(study: Path) -> None:
    alone = judge(["clean", "mixed", "lost"])
    for stage in ("train", "evaluate"):
        folder = study / "artifacts" / stage
        for seed, name in enumerate(("clean", "mixed", "lost")):
            shutil.copytree(folder / name, folder / f"several/seed-{seed}")
    # a seed that params.yaml does not name is left over from another run
    for stage in ("train", "evaluate"):
        folder = study / "artifacts" / stage / "several"
        shutil.copytree(folder / "seed-0", folder / "seed-3")
        seal(folder.parent)
    run(context({"several": {**CELL, "seeds": [0, 1, 2]}}, {}))
    assert not (study / "artifacts/judge/several/seed-3.json").exists()
    for seed, name in enumerate(("clean", "mixed", "lost")):
        results = read_json(study / f"artifacts/judge/several/seed-{seed}.json")
        assert results == {**alone[name], "cell": f"several/seed-{seed}"}


def test_a_users_label_is_a_label_of_the_judge(study: Path) -> None:
    """Latent 6 fires on random tokens, which only the user has a name for."""
    store = ActivationStore(study / "artifacts/extract")
    index = store.index("validation").whole()
    fires = store.activations(HOOK, "validation").whole()[:, 6] > 0
    assert judge(["clean"])["clean"]["labels"]["6"] == "POLYSEMANTIC"
    spans = pd.DataFrame({"document": index[fires, 0], "start": index[fires, 1],
                          "end": index[fires, 1] + 1, "concept": "mine"})  # fmt: skip
    spans.to_parquet(study / "mine.parquet")
    pinned = {"path": "mine.parquet", "sha256": sha256_file(study / "mine.parquet")}
    assert judge(["clean"], concepts=pinned)["clean"]["labels"]["6"] == "user:mine"
    spans.iloc[:-1].to_parquet(study / "mine.parquet")
    with pytest.raises(StudyError, match=r"evaluate\.concepts\.path: .* has changed"):
        judge(["clean"], concepts=pinned)


def test_study_prompts_reach_the_endpoint(study: Path, endpoint: Endpoint) -> None:
    endpoint.script = answering
    judge(["clean"], **http(endpoint))
    before = len(endpoint.prompts)
    (study / "label.md").write_text("version: 2\n\nPOLYSEMANTIC, or << and >>?\n{{texts}}")
    own = {"label": {"path": "label.md", "sha256": sha256_file(study / "label.md")}}
    judge(["clean"], **http(endpoint), prompts=own)
    again = endpoint.prompts[before:]
    assert len(again) == 7, "the labels of all alive latents, and nothing else"
    assert all(prompt.startswith("POLYSEMANTIC, or << and >>?\n<texts>") for prompt in again)


@dataclass(frozen=True)
class Yes:
    """The score that the test below adds: the fraction of windows answered with yes."""

    yes: float


DUMMY = Score(
    prompt="dummy",
    questions=lambda maker, prompt, windows, explanation: [
        ScoringQuestion(maker.mark_value(prompt, window, explanation))
        for window in windows.positives
    ],
    parse=lambda text, _: {"yes": 1, "no": 0}.get(text),
    value=lambda questions, answers, *_: Yes(
        sum(answer or 0 for answer in answers) / len(questions)
    ),
    pooled=lambda values, *_: {"yes": sum(v.yes for v in values) / len(values)},
)


def test_a_score_is_a_row_and_a_prompt(
    study: Path, tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name in the schema aside, nothing else knows of a score."""
    shutil.copytree(Path(str(prompts.FOLDER)), tmp_path / "prompts")
    (tmp_path / "prompts/dummy.md").write_text("version: 1\n\nIs it {{explanation}}? {{texts}}")
    monkeypatch.setattr(prompts, "FOLDER", tmp_path / "prompts")
    monkeypatch.setitem(cast("dict[str, Score]", SCORES), "dummy", DUMMY)

    def script(number: int, prompt: str) -> Response:
        return completion("yes") if prompt.startswith("Is it") else answering(number, prompt)

    endpoint.script = script
    settings = Judge(**SMALL, **http(endpoint)).model_copy(update={"scores": ("dummy", "fuzzing")})
    cells = {"clean": Cell(**CELL)}
    result = judge_cells(cells, settings, 0, study, study / ANSWERS)["clean"]
    assert result["scores"]["dummy"] == {"yes": 1.0}
    assert result["scores"]["fuzzing"]["latents"] > 0
    assert result["answers"]["dummy"]["parsed"] > 0
    assert all(entry["dummy"] == {"yes": 1.0} for entry in result["explained"] if "dummy" in entry)
    concepts = settings.model_copy(update={"kind": "concepts"})
    alone = judge_cells(cells, concepts, 0, study, study / ANSWERS)["clean"]
    assert alone["scores"]["dummy"] is None, "the ground truth has no answer"


def test_every_score_has_its_row_its_facts_and_its_documentation(
    study: Path, endpoint: Endpoint
) -> None:
    assert set(SCORES) == set(get_args(ScoreName)), "judge.scores: SCORES; params.judge: Score"
    assert set(SCORES) == set(SCORE_INFO), "params/judge.py: SCORE_INFO"
    documentation = (ROOT / "docs/judge.md").read_text()
    assert [name for name in SCORES if f"\n| `{name}` |" not in documentation] == []
    endpoint.script = answering
    summaries = judge(["clean"], **http(endpoint))["clean"]["scores"]
    for name, info in SCORE_INFO.items():
        value = summaries[name][info.headline]
        assert value is not None, f"{name}: `answering` has no answer that it can read"
        assert isinstance(value, list) or len(summaries[name]["interval"]) == 2


def test_results_of_removed_cells_are_deleted(study: Path) -> None:
    judge(["clean", "mixed"])
    judge(["clean"])
    assert {p.name for p in (study / "artifacts/judge").iterdir()} == {"clean.json", CONTENTS}


def test_only_latents_in_both_halves_are_explained(study: Path) -> None:
    counts = judge(latents=6)["clean"]["counts"]
    assert counts["latents"] == 8
    assert counts["latents_alive"] == 7
    assert counts["latents_to_explain"] == 6
    assert counts["latents_in_one_half_only"] == 0


def test_a_person_judges_by_sheets_and_gets_what_a_model_that_says_the_same_gets(
    study: Path, endpoint: Endpoint
) -> None:
    endpoint.script = answering
    asked = judge(["clean"], **http(endpoint))
    shutil.rmtree(study / "judge")
    rounds = 0
    while True:
        try:
            rated = judge(["clean"], kind="human", model="some-model", scores=SCORES_TRIED)
            break
        except StudyError as error:
            assert "have no answer of some-model yet" in str(error)
        rounds += 1
        sheet = study / "judge/ratings.csv"
        rows = pd.read_csv(sheet, dtype=str, keep_default_na=False)
        texts = [answering(0, prompt).body for prompt in rows["question"]]
        replies = [json.loads(body)["choices"][0]["message"]["content"] for body in texts]
        rows.assign(answer=replies).to_csv(sheet, index=False)
    assert rounds == 2, "explanations, then the questions that score them"
    assert rated == asked
