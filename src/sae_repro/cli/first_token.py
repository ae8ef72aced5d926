"""The first token of rows: candidates compared, and the one to set."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae_repro.probe.starts import Measured, Start


def chosen_start(
    model: Path, texts: Sequence[str], hooks: Sequence[str], context: int
) -> tuple[bool | str, list[str]]:
    """(extract.prepend_bos of a new study on the model in a folder, lines to show).

    The default, where nothing else is clearly better on `texts`. StudyError for a hook that the
    model lacks.
    """
    from sae_repro.errors import StudyError
    from sae_repro.probe.extraction import NORM_LIMIT
    from sae_repro.probe.starts import best, compare, default_of, starts_of
    from sae_repro.probe.text import documents_of
    from sae_repro.readers.agreement import hook_problems, hooks_of
    from sae_repro.readers.subject import load_subject
    from sae_repro.readers.tokenizer import read_tokenizer

    subject = load_subject(model)
    problems = list(hook_problems(hooks, hooks_of(subject)))
    if problems:
        raise StudyError("\n".join(f"{model}: {line}" for line in problems))
    tokenizer = read_tokenizer(str(model), model, local_files_only=True)
    measured = compare(
        subject,
        documents_of(texts, tokenizer),
        list(starts_of(tokenizer)),
        hooks=hooks,
        context=context,
        limit=NORM_LIMIT,
        what=str(model),
    )
    if not measured:
        return default_of(tokenizer), []
    return best(measured).start.value, list(start_lines(measured, made=True))


def start_lines(measured: Sequence["Measured"], *, made: bool = False) -> Iterator[str]:
    """What `extract.prepend_bos` should be, where that is clearly something else than it is.

    `made`: of a study that is being made, which has it that way; else with a warning.
    """
    from sae_repro.probe.starts import best

    present, chosen = measured[0], best(measured)
    if chosen is present:
        if not made:
            yield f"rows start with {_called(present.start)}; nothing is clearly better"
        return
    yield (
        f"{'' if made else 'warning: '}rows that start with {_called(chosen.start)} are better "
        f"than with {_called(present.start)}: cross-entropy {chosen.loss - present.loss:+.3f} "
        f"nats, sinks {present.sinks:.2%} → {chosen.sinks:.2%} of tokens; "
        + ("" if made else "set ")
        + f"extract.prepend_bos: {spelled(chosen.start)}"
    )


def spelled(start: "Start") -> str:
    """A value of `extract.prepend_bos` as YAML has it."""
    return f'"{start.value}"' if isinstance(start.value, str) else str(start.value).lower()


def _called(start: "Start") -> str:
    return "no token" if start.token is None else start.text


def starts_table(measured: Sequence["Measured"]) -> str:
    from tabulate import tabulate

    return str(
        tabulate(
            [
                {
                    "prepend_bos": spelled(one.start),
                    "token": _called(one.start),
                    "cross-entropy": f"{one.loss:.3f}",
                    "sinks": f"{one.sinks:.2%}",
                    "rows with a sink at": ", ".join(
                        f"{position}: {share:.1%}" for position, share in one.at.items()
                    ),
                }
                for one in measured
            ],
            headers="keys",
            disable_numparse=True,
        )
    )
