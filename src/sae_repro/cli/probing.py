"""`check --probe`: what a batch through the subject shows, and what the study will take."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sae_repro.cli.first_token import start_lines, starts_table
from sae_repro.params import Study

if TYPE_CHECKING:
    from sae_repro.probe import Probe
    from sae_repro.probe.extraction import Extraction
    from sae_repro.probe.trial import Kind

MANY_POSITIONS = 4  # of which the table of norms has a column each


def probe_lines(study: Study, folder: Path) -> Iterator[str]:
    """Tables, warnings and estimates, each as soon as it is known; `folder` holds params.yaml."""
    from sae_repro.probe import opened

    with opened(study, folder) as probe:
        yield "probe: the beginning of the study's text, each row behind"
        measured = probe.starts()
        if measured:
            yield starts_table(measured)
            yield from start_lines(measured)
        else:
            yield "what rows start with can't be compared: fewer than two have three tokens of text"
        yield "\nnorms at the study's hooks"
        yield _norms_table(probe.extraction)
        yield from _norm_warnings(probe)
        yield "\ntime and disk, as this machine is now"
        yield from _estimates(probe, folder)


def _norms_table(found: "Extraction") -> str:
    from tabulate import tabulate

    rows = []
    for norms in found.norms:
        row = {
            "hook": norms.hook,
            "median": f"{norms.median:,.4g}",
            "99.9 %": f"{norms.q999:,.4g}",
            "max": f"{norms.max:,.4g}",
            "sinks": f"{norms.beyond:.2%}",
        }
        for position in map(str, range(MANY_POSITIONS)):
            at = norms.positions.get(position)
            row[f"at {position}"] = "–" if at is None else f"{at['median']:,.4g}/{at['max']:,.4g}"
        rows.append(row)
    return str(tabulate(rows, headers="keys", disable_numparse=True)) + (
        "\nat 0 … 3: median/max at a position of a row; the first is no activation in any case"
    )


def _norm_warnings(probe: "Probe") -> Iterator[str]:
    from sae_repro.probe.extraction import NORM_LIMIT

    limit, found = probe.study.extract.norm_limit, probe.extraction
    worst = max(found.norms, key=lambda norms: norms.beyond)
    if not worst.beyond:
        return
    if limit is None:
        yield (
            f"warning: {worst.beyond:.2%} of tokens have norms beyond {NORM_LIMIT:g} times the "
            f"median at {worst.hook}, and extract.norm_limit: null lets them into training; set "
            f"extract.norm_limit: {NORM_LIMIT:g}"
        )
        return
    places = ", ".join(f"position {place}: {share:.2%}" for place, share in found.at.items())
    yield f"extract.norm_limit = {limit:g} leaves out {sum(found.at.values()):.2%} ({places})"


def _estimates(probe: "Probe", folder: Path) -> Iterator[str]:
    from sae_repro.corpus.split import splits_of
    from sae_repro.probe.extraction import (
        free_bytes,
        passes_of,
        shard_bytes,
        stored_tokens,
        tokens_of,
    )
    from sae_repro.readers.hooked import hook_widths

    study, found = probe.study, probe.extraction
    settings = study.extract
    tokens = tokens_of(settings, splits_of(study.corpus))
    rate = found.tokens / found.seconds
    d_in = hook_widths(probe.subject, settings.model_hooks)
    passes = passes_of(settings, probe.subject.cfg.n_layers)
    stored = stored_tokens(settings, splits_of(study.corpus))
    size, free = shard_bytes(settings, stored, d_in), free_bytes(folder)
    yield (
        f"extract: {found.tokens:,} tokens in {found.seconds:.3g} s, {rate:,.0f} a second; all "
        f"{tokens:,}: {_time(tokens * passes / rate)}, shards of {_size(size)}"
    )
    if settings.keep == "buffer":
        yield "train: extracts all rounds but the first again, once for each epoch"
    yield f"memory: {_size(found.memory)} at most so far"
    if size > free:
        yield f"warning: the disk of {folder.resolve()} has {_size(free)} left"
    yield from _training(list(probe.kinds(settings.n_tokens)))


def _training(found: Sequence["Kind"]) -> Iterator[str]:
    from sae_repro.sidebyside import workers

    for kind in found:
        if kind.fault:
            yield f"warning: {kind.names[0]}: its first steps fail: {kind.fault}"
    if not found:
        return
    total, cores = sum(kind.seconds for kind in found), workers()
    slowest = max(found, key=lambda kind: kind.longest)
    yield (
        f"train: {sum(len(kind.names) for kind in found)} SAEs, {_time(total)} of one core, "
        f"{_time(max(total / cores, slowest.longest))} on {cores}; longest {slowest.names[0]} (K "
        f"= {slowest.d_sae:,}), {_time(slowest.longest)}. Revivals are not in it, nor evaluation"
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 90 * 60 else f"{seconds / 3600:.2g} h"


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
