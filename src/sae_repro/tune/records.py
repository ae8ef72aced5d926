"""Finished trials: the record that the journal keeps of each, and its Optuna trial."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState, create_trial

from sae_repro.params import Tune
from sae_repro.tune.job import Outcome
from sae_repro.tune.proposals import Proposal
from sae_repro.tune.space import recipe_of

RECORD = "sae_repro.record"
SHA256 = "sae_repro.sha256"
STATES = {"ok": TrialState.COMPLETE, "failed": TrialState.FAIL, "pruned": TrialState.PRUNED}


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial: its cell, its measurements, and whether it may be best."""

    number: int
    status: str
    """ok, failed or pruned."""
    recipe: str
    choices: dict[str, Any]
    params: dict[str, Any]
    metrics: dict[str, float]
    """Metrics on the tuning documents, and counts; none unless the cell is trained."""
    losses: tuple[float, ...]
    """A number per objective, or their weighted sum; less is better."""
    feasible: bool
    """Whether it holds all constraints."""
    key: str
    evaluation: str
    reason: str
    reports: dict[str, float] = field(default_factory=dict)
    """FVU by step, where the study has a pruner."""


def record_of(trial: FrozenTrial) -> TrialRecord:
    """The record that `trial_of` attached to a trial."""
    fields = trial.system_attrs.get(RECORD) or trial.user_attrs[RECORD]  # there in older journals
    return TrialRecord(**{**fields, "losses": tuple(fields["losses"])})


def finished_trial(
    tune: Tune, proposal: Proposal, key: str, outcome: Outcome, seconds: float | None = None
) -> FrozenTrial:
    """The trial to record: COMPLETE, FAIL (diverged, or an objective without a value) or PRUNED.

    It has ended now, `seconds` after its start.
    """
    status, reason = outcome.status, outcome.reason
    metrics = _metrics(outcome.measured)
    if status == "ok":
        unmeasured = sorted({*tune.objectives, *tune.constraints} - metrics.keys())
        if unmeasured:
            status, reason = "failed", f"not measured on this cell: {', '.join(unmeasured)}"
    record = judged(
        tune,
        number=proposal.number,
        status=status,
        recipe=recipe_of(tune, proposal.params),
        choices=proposal.choices,
        params=proposal.params,
        metrics=metrics,
        key=key,
        evaluation=outcome.measured.get("evaluation", ""),
        reason=reason,
        reports={str(step): fvu for step, fvu in outcome.reports.items()},
    )
    notes = {**proposal.notes, **outcome.notes}
    trial = trial_of(tune, record, proposal.distributions, notes)
    if seconds is not None:
        assert trial.datetime_complete is not None
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=seconds)
        trial.set_user_attr("seconds", round(seconds, 1))
    return trial


def judged(tune: Tune, **fields: Any) -> TrialRecord:
    """A record of `fields`, its losses and its feasibility by the study's own measure."""
    ok, metrics = fields["status"] == "ok", fields["metrics"]
    return TrialRecord(
        losses=_losses(tune, metrics) if ok else (),
        feasible=not ok or all(value <= 0 for value in _excess(tune, metrics).values()),
        **fields,
    )


def trial_of(
    tune: Tune,
    record: TrialRecord,
    distributions: Mapping[str, Any],
    notes: Mapping[str, Any],
) -> FrozenTrial:
    """The Optuna trial of a record; `notes` are the sampler's and the pruner's own attributes."""
    ok = record.status == "ok"
    attributes: dict[str, Any] = {**notes, RECORD: asdict(record)}
    if ok and tune.constraints:
        # Optuna reads these by name, too, but optuna-dashboard reads this list alone
        attributes["constraints"] = list(_excess(tune, record.metrics).values())
    trial = create_trial(
        state=STATES[record.status],
        values=_values(tune, record.losses) if ok else None,
        params=record.params,
        distributions=dict(distributions),
        # the dashboard shows user attributes, a column each, and none of the system's
        system_attrs=attributes,
        user_attrs=_shown(tune, record),
        intermediate_values={int(step): fvu for step, fvu in record.reports.items()},
    )
    trial.system_attrs[SHA256] = trial_sha256(trial)
    return trial


def trial_sha256(trial: FrozenTrial) -> str:
    """SHA-256 of all of a trial that results and later proposals follow from."""
    content = [
        trial.state.name,
        [float(value) for value in trial.values or ()],
        trial.params,
        {name: distribution_to_json(d) for name, d in trial.distributions.items()},
        {name: value for name, value in trial.system_attrs.items() if name != SHA256},
        {str(step): float(value) for step, value in trial.intermediate_values.items()},
    ]
    # through JSON once, as the journal keeps it: keys as text, tuples as lists
    kept = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _shown(tune: Tune, record: TrialRecord) -> dict[str, Any]:
    """Attributes for people: the cell, its most important metrics, the reason of a failure."""
    names = dict.fromkeys(["l0", "fvu", "dead_fraction_never", *tune.objectives, *tune.constraints])
    attributes: dict[str, Any] = {f"cell.{name}": value for name, value in record.choices.items()}
    attributes |= {name: record.metrics[name] for name in names if name in record.metrics}
    if tune.constraints and record.status == "ok":
        attributes["holds constraints"] = "yes" if record.feasible else "no"
    if record.reason:
        attributes["reason"] = record.reason
    return attributes


def _excess(tune: Tune, metrics: Mapping[str, float]) -> dict[str, float]:
    """By how much each constrained metric exceeds its bound."""
    return {name: metrics[name] - most for name, most in tune.constraints.items()}


def _metrics(measured: Mapping[str, Any]) -> dict[str, float]:
    """A measurement flat: metrics that have a value, then the counts."""
    flat = {name: v for name, v in measured.get("metrics", {}).items() if v is not None}
    return {**flat, **measured.get("counts", {})}


def _losses(tune: Tune, metrics: Mapping[str, float]) -> tuple[float, ...]:
    signed = {
        name: metrics[name] if direction == "minimize" else -metrics[name]
        for name, direction in tune.objectives.items()
    }
    if tune.weights:
        return (sum(tune.weights[name] * value for name, value in signed.items()),)
    return tuple(signed.values())


def _values(tune: Tune, losses: tuple[float, ...]) -> list[float]:
    """The values for Optuna: each objective as it is, or the weighted sum."""
    if tune.weights:
        return list(losses)
    return [
        loss if direction == "minimize" else -loss
        for loss, direction in zip(losses, tune.objectives.values(), strict=True)
    ]
