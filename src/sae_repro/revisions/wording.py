"""Changes and their reasons as lines of text, the most important first."""

from collections.abc import Iterator, Mapping, Sequence

from sae_repro.compare.ranking import METRICS
from sae_repro.compare.tables import with_interval
from sae_repro.errors import shown
from sae_repro.metrics import find
from sae_repro.metrics.labels import heading
from sae_repro.revisions.changes import Changes, Moved, Sentences, Turned, value_of
from sae_repro.revisions.numbers import Number
from sae_repro.revisions.reasons import ABSENT, Reasons, Stage

FEW = 3
"""Numbers shown of each metric, unless all are asked for."""
SOME = 8
"""Metrics, params, cells and other names shown in one place, unless all are asked for."""


def report(found: Changes, why: Reasons, names: tuple[str, str], *, everything: bool) -> list[str]:
    """The lines; one where nothing changed that a reader of the results must know."""
    between = f"{names[0]} → {names[1]}"
    if not found:
        return [f"{between}: no claim, cell or sentence of the verdict changed, and no number "
                f"moved beyond its interval ({_quiet(found)})"]  # fmt: skip
    few = (len(found.moved) if everything else FEW, 10_000 if everything else SOME)
    lines = [f"{between}: {_summary(found)}"]
    for title, part in (
        ("claims", _claims(found.claims)),
        ("verdict", _sentences(found.verdict)),
        ("findings", _sentences(found.findings)),
        ("cells", _cells(found, few[1])),
        ("numbers beyond their intervals", _numbers(found.moved, why.settings, *few)),
        ("why", _why(why, few[1])),
    ):
        if body := list(part):
            lines += ["", title, *(f"  {line}" for line in body)]
    return lines


def _quiet(found: Changes) -> str:
    if not found.within and not found.without_interval:
        return f"{found.compared:,} numbers with an interval, the same to the last digit"
    return f"{found.within:,} of {found.compared:,} changed within it" + (
        f", {found.without_interval:,} without an interval" if found.without_interval else ""
    )


def _summary(found: Changes) -> str:
    turned = [change for change in found.claims if change.was and change.now]
    new = len(found.claims) - len(turned)
    parts = [
        f"{len(found.moved):,} of {found.compared:,} numbers moved beyond their intervals "
        f"({found.within:,} within)",
        _count(len(turned), "claim") + " turned" + (f" and {new} new or gone" if new else ""),
        _count(sum(map(_size, found.verdict)), "sentence") + " of the verdict changed",
    ]
    if found.cells_added or found.cells_removed:
        parts.append(f"{len(found.cells_added)} cells added, {len(found.cells_removed)} removed")
    return "; ".join(parts)


def _size(change: Sentences) -> int:
    return max(len(change.was), len(change.now))


def _count(n: int, noun: str) -> str:
    return f"{n or 'no'} {noun}" + ("" if n == 1 else "s")


def _claims(turned: Sequence[Turned]) -> Iterator[str]:
    """Verdicts that turned, then those on new claims, then the claims that are gone."""
    ranked = sorted(turned, key=lambda t: (t.was is None) + 2 * (t.now is None))
    for change in ranked:
        if change.was is None or change.now is None:
            row, how = (change.now, "new") if change.now else (change.was, "no longer there")
            assert row is not None
            yield f"{change.claim}: {how}: {row.get('verdict')}, {_claimed(row)}"
            continue
        verdicts = [row.get("verdict", "") for row in (change.was, change.now)]
        arrow = " → ".join(dict.fromkeys(verdicts))
        numbers = " → ".join(dict.fromkeys(map(_claimed, (change.was, change.now))))
        yield f"{change.claim}: {arrow}: {numbers}"


def _claimed(row: Mapping[str, str]) -> str:
    value = value_of(row)
    bound = f", claimed {row.get('expected')}" if row.get("expected") else ""
    return (_interval(value) if value else "no number") + bound


def _interval(of: Number) -> str:
    bounds = None if of.low is None or of.high is None else (of.low, of.high)
    return with_interval(of.value, bounds)


def _sentences(changes: Sequence[Sentences]) -> Iterator[str]:
    for change in changes:
        yield from (f"- {sentence}" for sentence in change.was)
        yield from (f"+ {sentence}" for sentence in change.now)


def _cells(found: Changes, most: int) -> Iterator[str]:
    for cell, was, now in found.statuses:
        yield f"{cell}: {was} → {now}"
    if found.cells_added:
        yield f"added: {_listed(found.cells_added, most)}"
    if found.cells_removed:
        yield f"removed: {_listed(found.cells_removed, most)}"


def _listed(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _numbers(
    moved: Sequence[Moved], settings: Mapping[str, Sequence[str]], few: int, some: int
) -> Iterator[str]:
    """By metric: those of the verdict first, then those in which most moved."""
    by_metric: dict[str, list[Moved]] = {}
    for one in moved:
        by_metric.setdefault(one.metric, []).append(one)
    ranked = sorted(
        by_metric,
        key=lambda m: (METRICS.index(m) if m in METRICS else len(METRICS), -len(by_metric[m]), m),
    )
    for metric in ranked[:some]:
        group = sorted(by_metric[metric], key=lambda one: (one.one_seed, -one.far))
        yield f"{heading(metric)}: {_directions(metric, group)}"
        for one in group[:few]:
            remarks = ["one seed: another may turn it"] if one.one_seed else []
            if keys := settings.get(one.subject.split(",")[0].split("/")[0]):
                remarks.append(f"its settings: {_listed(keys, FEW)}")
            remark = f" ({'; '.join(remarks)})" if remarks else ""
            yield f"  {one.subject}: {_interval(one.was)} → {_interval(one.now)}{remark}"
        if len(group) > few:
            yield f"  and {len(group) - few} more (--all)"
    if left := ranked[some:]:
        yield f"and in {_listed([f'{m} ({len(by_metric[m])})' for m in left], some)} (--all)"


def _directions(metric: str, group: Sequence[Moved]) -> str:
    up = sum(one.now.value > one.was.value for one in group)
    row = find(metric)
    better = row.better if row else "none"
    counts = {"higher": up, "lower": len(group) - up}
    return ", ".join(
        f"{n} {way}" + ("" if better == "none" else f" ({'better' if way == better else 'worse'})")
        for way, n in counts.items()
        if n
    )


def _why(why: Reasons, most: int) -> Iterator[str]:
    if why.params:
        yield "params"
        for key, was, now in why.params[:most]:
            yield f"  {key}: {_change(was, now)}"
        if len(why.params) > most:
            yield f"  and {len(why.params) - most} more (--all)"
    if why.data:
        yield f"data: {_listed(why.data, most)}"
    if why.versions:
        changes = [f"{name} {was or 'none'} → {now or 'none'}" for name, was, now in why.versions]
        yield f"versions: {_listed(changes, most)}"
    if why.code:
        yield "code"
        yield from (f"  {_code(stage, most)}" for stage in why.code)
    for how, stages in (("new", why.stages_added), ("no longer there", why.stages_removed)):
        if stages:
            yield f"stages {how}: {', '.join(stages)}"
    if not why:
        yield "params, data, code and versions are the same: another machine, or kernels (verify)"
    if why.made_again:
        yield f"other bytes come from: {', '.join(why.made_again)}"
    if why.commits:
        yield "recorded by"
        yield from (f"  {commit}" for commit in why.commits[:most])
        if len(why.commits) > most:
            yield f"  and {len(why.commits) - most} more"


def _change(was: object, now: object) -> str:
    if isinstance(was, list) and isinstance(now, list):
        added = [f"+ {shown(item)}" for item in now if item not in was]
        removed = [f"- {shown(item)}" for item in was if item not in now]
        if added or removed:
            return ", ".join([*added, *removed])
    if was is ABSENT or now is ABSENT:
        value, how = (now, "added") if was is ABSENT else (was, "removed")
        return how if value == {} else f"{how}, {shown(value)}"
    return f"{shown(was)} → {shown(now)}"


def _code(stage: Stage, most: int) -> str:
    parts = [f"{len(paths)} {how}" for how, paths in
             (("changed", stage.changed), ("new", stage.added), ("gone", stage.removed))
             if paths]  # fmt: skip
    files = [path.removeprefix("src/sae_repro/") for path in (*stage.changed, *stage.added)]
    return f"{stage.name}: of {stage.of} paths {', '.join(parts)}: {_listed(files, most)}"
