"""What a weak judge is worth: its answers to questions whose right answers the grammar knows.

    python -m benchmarks.weak_judge ask http://127.0.0.1:8011/v1 [--study .]
    python -m benchmarks.weak_judge tables

`ask` needs the embedded study's artifacts and a judge behind that endpoint, such as
benchmarks.judge_server. It asks about concepts of the grammar, then has the stage's own code label
and score a few latents, and records all answers. `tables` makes the tables of the recorded answers
anew. All files are reports/benchmarks/judge_smollm2*.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sae_repro.files import canonical_json, write_text
from sae_repro.judge.backends.record import read_answers
from sae_repro.judge.parsers import POLYSEMANTIC, parse_flags, parse_label, read_each
from sae_repro.judge.protocol import Answer, Question
from sae_repro.params import Judge

from .judge_agreement import Pairs, agreement
from .judge_questions import (
    CONCEPTS,
    GREEDY,
    REPEATED,
    ROUNDS,
    SEED,
    TEXTS,
    Asked,
    judge_settings,
    model_of,
    questions,
)
from .tables import FOLDER, machine_of

NAME = "judge_smollm2"
ANSWERS = FOLDER / f"{NAME}.jsonl"
QUESTIONS = FOLDER / f"{NAME}_questions.jsonl"
AGAIN = FOLDER / f"{NAME}_again.jsonl"
LATENTS = FOLDER / f"{NAME}_latents.json"
CELL = "topk-x8-k16/seed-0"


def ask(url: str, study: Path, model: str, max_tokens: int) -> None:
    """Ask what no record holds yet, and write the files of questions and of latents."""
    from sae_repro.judge.backends.http import HttpBackend

    settings = judge_settings(model, url, max_tokens)
    asked = list(questions(study, settings))
    lines = [canonical_json(asdict(one)) for one, _ in asked]
    write_text(QUESTIONS, "\n".join(lines) + "\n")

    def answer(kind: str, record: Path, some: Sequence[Question]) -> None:
        named = settings.model_copy(update={"model": model_of(kind, model)})
        HttpBackend(named, record).answer(some)

    def of(*group: str) -> list[Question]:
        return [question for one, question in asked if how(one) == group]

    found = {"asked": {"model": model, **machine_of("native")}}
    write_text(LATENTS, json.dumps(found, indent=1, sort_keys=True) + "\n")
    for group in ROUNDS:
        answer(group[0], ANSWERS, of(*group))
    # backwards: in a batch each has other companions
    answer("choice", AGAIN, of("choice", "short", GREEDY)[::REPEATED][::-1])
    found |= latents(study, settings)
    write_text(LATENTS, json.dumps(found, indent=1, sort_keys=True) + "\n")


def how(one: Asked) -> tuple[str, str, str]:
    """All that its group of questions shares."""
    return one.kind, one.wording, one.draw


def latents(study: Path, settings: Judge) -> dict[str, Any]:
    """What the stage finds of `CELL`: by this judge, by a replay of its record, by the concepts.

    StudyError where the replay differs.
    """
    from sae_repro.errors import StudyError
    from sae_repro.judge.judging import judge_cells
    from sae_repro.params import read_cells, read_yaml

    given = read_yaml(study / "params.yaml")
    name = CELL.partition("/")[0]
    cell = {key: value for key, value in given["cells"][name].items() if key != "seeds"}
    cells = read_cells(given["recipes"], {CELL: cell})
    by: dict[str, Any] = {}
    for kind in ("http", "replay", "concepts"):
        changed = settings.model_copy(update={"kind": kind})
        by[kind] = judge_cells(cells, changed, SEED, study, ANSWERS)[CELL]
    if by.pop("replay") != by["http"]:
        raise StudyError(f"{ANSWERS}: the replay gives other results than the answers themselves")
    return by


def asked_questions() -> list[Asked]:
    """The questions on record."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    return [Asked(**{**one, "truth": tuple(one["truth"])}) for one in read]


def values(asked: Sequence[Asked], answers: Mapping[str, Answer]) -> list[tuple[int, ...] | None]:
    """What each answer says, in the form of the truth; None where it can't be read."""

    def label(text: str) -> tuple[int, ...] | None:
        said = parse_label(text)
        return None if said is None else (int(said != POLYSEMANTIC),)

    def flags(n: int, text: str) -> tuple[int, ...] | None:
        said = parse_flags(text, n)
        return None if said is None else tuple(said)

    parsers = [label if one.kind == "label" else partial(flags, len(one.truth)) for one in asked]
    return read_each([answers[one.key] for one in asked], parsers)[0]


def agreements() -> list[dict[str, Any]]:
    """The rows of the table: agreement with the truth, then with the judge's own other answers."""
    asked, answers, again = asked_questions(), read_answers(ANSWERS), read_answers(AGAIN)
    groups: dict[tuple[str, str, str], dict[str, Asked]] = {}
    for one in asked:
        groups.setdefault(how(one), {})[one.item] = one
    # a run that was ended early has whole groups of questions, and a part of one
    groups = {
        name: items
        for name, items in groups.items()
        if all(one.key in answers for one in items.values())
    }
    answered = [one for items in groups.values() for one in items.values()]
    said = dict(zip([one.key for one in answered], values(answered, answers), strict=True))
    rows = []
    for (kind, wording, draw), items in groups.items():
        if draw == GREEDY:
            pairs = [(one.truth, said[one.key]) for one in items.values()]
            rows.append(_row(kind, f"{wording}, {draw}", "the grammar", pairs))
    first = groups["choice", "short", GREEDY]
    twice = [one for one in first.values() if one.key in again]
    repeated = values(twice, again)
    others = {
        "short, greedy, again": dict(zip([one.item for one in twice], repeated, strict=True)),
        **{
            f"{wording}, {draw}": {item: said[one.key] for item, one in items.items()}
            for (kind, wording, draw), items in groups.items()
            if kind == "choice" and items is not first
        },
    }
    for name, other in others.items():
        pairs = [(said[first[item].key] or (), value) for item, value in other.items()]
        rows += [_row("choice", name, "short, greedy", pairs)] if pairs else []
    return rows


def _row(kind: str, answer: str, other: str, pairs: Pairs) -> dict[str, Any]:
    row = {"kind": kind, "answers": answer, "beside": other}
    return row | agreement(pairs, f"{kind}/{answer}/{other}")


def names_right() -> dict[str, tuple[int, int]]:
    """Per wording, of the labels of tokens of one concept: (those that name it, labels)."""
    answers, found = read_answers(ANSWERS), dict[str, tuple[int, int]]()
    for one in asked_questions():
        if one.kind != "label" or one.truth != (1,) or one.key not in answers:
            continue
        (said,), _ = read_each([answers[one.key]], [parse_label])
        right, n = found.get(one.wording, (0, 0))
        if said is None or said == POLYSEMANTIC:
            found[one.wording] = right, n
        else:
            named = any(word in said.lower() for word in CONCEPTS[one.concept][1])
            found[one.wording] = right + named, n + 1
    return found


def tables() -> dict[Path, str]:
    """The contents of the table and of the page on it, from the files on record alone."""
    import pandas as pd

    rows = pd.DataFrame(agreements())
    on = json.loads(LATENTS.read_text(encoding="utf-8"))
    shown = rows[["kind", "answers", "beside", "questions", "unreadable", "n"]].assign(
        **{
            "agree": rows["agree"].map(_number),
            "said 1": rows["ones"].map(_number),
            "κ": [_between(*row) for row in rows[["kappa", "kappa_low", "kappa_high"]].to_numpy()],
        }
    )
    facts = on["asked"]
    page = f"""# {facts["model"]} as a judge

Questions whose right answers the grammar of the stories knows, on {len(CONCEPTS)} concepts
and {TEXTS} texts of each, half of which carry it on their marked word.

- choice: is the marked word such a word? One text a question; the answer is the more likely of 0
  and 1, for the endpoint lets the model say nothing else.
- flags: the same of {TEXTS} texts at once, as the stage asks. The model may say what it likes.
- label: what have the marked words of {TEXTS} texts in common? Right is a label where all carry one
  concept, and POLYSEMANTIC where they are of {TEXTS} classes.

Wordings: built-in, and short (benchmarks/judge_prompts). beside: what the answers are compared
with. unreadable: answers without a value, cut-off ones included, which count as neither right nor
wrong. n: values compared. said 1: fraction of 1, or of labels other than POLYSEMANTIC. κ: Cohen's,
[95 % interval over resampled questions]; 0 is chance; – where one side always says the same, or
nothing can be read.

{shown.to_markdown(index=False, disable_numparse=True)}

{_names()}{_latents(on)}{facts["date"]}; {facts["processor"]}, {facts["instruction_sets"]};
torch {facts["torch"]}.
"""
    csv = rows.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return {FOLDER / f"{NAME}.csv": csv, FOLDER / f"{NAME}.md": page}


def _names() -> str:
    named = ", ".join(f"{wording} {a} of {n}" for wording, (a, n) in names_right().items())
    return f"Labels of words of one concept that name it: {named}.\n\n" if named else ""


def _latents(on: Mapping[str, Any]) -> str:
    """The section on the stage; empty where it was not asked."""
    if "http" not in on:
        return ""
    return f"""## Latents

The stage `judge` on {CELL} of the embedded study, in the built-in wording; a replay of the
record gave the same results. Beside it the text's own concepts on the same latents: counts and
fractions with 95 % intervals.

{_latents_table(on)}

"""


def _latents_table(on: Mapping[str, Any]) -> str:
    """Both judges' fractions, scores and counts of answers."""
    lines = ["| | judge | concepts |", "|---|---|---|"]

    def line(name: str, value: Callable[[Mapping[str, Any]], str]) -> None:
        lines.append(f"| {name} | {value(on['http'])} | {value(on['concepts'])} |")

    def rate(group: str, of: Mapping[str, Any]) -> str:
        found = of["rates"][group]
        return f"{found['labelled']} of {found['answered']} {_bounds(found['interval'])}"

    def score(name: str, of: Mapping[str, Any]) -> str:
        found = of["scores"][name]
        if not found or found["balanced_accuracy"] is None:
            return "–"
        contexts = found["positives"] + found["negatives"]
        value = _number(found["balanced_accuracy"])
        return f"{value} {_bounds(found['interval'])}, {contexts} contexts"

    def read(name: str, of: Mapping[str, Any]) -> str:
        found = of["answers"].get(name, {"parsed": 0, "unparsable": 0})
        return f"{found['parsed']} of {found['parsed'] + found['unparsable']}"

    for group in ("top", "bottom", "uniform"):
        line(f"labelled, {group}", partial(rate, group))
    for name in ("detection", "fuzzing"):
        line(f"{name}, balanced accuracy", partial(score, name))
    for name in ("label", "explain", "detection", "fuzzing"):
        line(f"readable answers: {name}", partial(read, name))
    labels = {kind: on[kind]["labels"] for kind in ("http", "concepts")}
    pairs = [
        ((int(label != POLYSEMANTIC),), None if said is None else (int(said != POLYSEMANTIC),))
        for latent, label in labels["concepts"].items()
        for said in [labels["http"][latent]]
    ]
    both, auc = agreement(pairs, "latents"), on["http"]["agreement"]
    kappa_of_both = _between(both["kappa"], both["kappa_low"], both["kappa_high"])
    return (
        "\n".join(lines) + "\n\nA label or POLYSEMANTIC, by the judge and by the concepts: of "
        f"{both['questions']} latents {both['n']} have a readable answer; agreement "
        f"{_number(both['agree'])}, κ {kappa_of_both}. AUC of M for a label: "
        f"{_number(auc['auc'])} {_bounds(auc['interval'])}, {auc['latents']} latents of the "
        "uniform sample."
    )


def _between(value: float | None, low: float | None, high: float | None) -> str:
    return f"{_number(value)} {_bounds((low, high))}".replace("– [–, –]", "–")


def _bounds(bounds: Sequence[float | None] | None) -> str:
    return "–" if bounds is None else f"[{_number(bounds[0])}, {_number(bounds[1])}]"


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f}"


def main() -> None:
    """`ask` or `tables`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weak_judge")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("tables", help="make the tables of the recorded answers")
    asking = verbs.add_parser("ask", help="ask what is not recorded yet; then the tables")
    asking.add_argument("url", help="the endpoint, up to its version")
    asking.add_argument("--study", type=Path, default=Path(), help="folder of the embedded study")
    asking.add_argument("--model", default="smollm2")
    asking.add_argument("--max-tokens", type=int, default=48)
    given = parser.parse_args()
    if given.verb == "ask":
        ask(given.url, given.study, given.model, given.max_tokens)
    for path, content in tables().items():
        write_text(path, content)


if __name__ == "__main__":
    main()
