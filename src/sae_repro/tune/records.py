"""Finished trials: the record that the journal keeps of each, and its Optuna trial."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from sae_repro.errors import StudyError
from sae_repro.params import Tune
from sae_repro.tune.job import Outcome
from sae_repro.tune.proposals import Proposal
from sae_repro.tune.space import recipe_of

RECORD = "sae_repro.record"
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
    """Held-out metrics, the ends of their intervals, counts; none unless the cell is trained."""
    losses: tuple[float, ...]
    """A number per objective, or their weighted sum; less is better."""
    feasible: bool
    """Whether it holds all constraints."""
    key: str
    evaluation: str
    reason: str


def record_of(trial: FrozenTrial) -> TrialRecord:
    """The record that `finished_trial` attached to a trial."""
    fields = trial.user_attrs[RECORD]
    return TrialRecord(**{**fields, "losses": tuple(fields["losses"])})


def finished_trial(tune: Tune, proposal: Proposal, key: str, outcome: Outcome) -> FrozenTrial:
    """The trial to record: COMPLETE, FAIL (diverged, or an objective without a value) or PRUNED.

    StudyError where metrics.json has no metric of an objective's or a constraint's name.
    """
    status, reason = outcome.status, outcome.reason
    metrics = _metrics(outcome.measured)
    constraints: dict[str, float] = {}
    losses: tuple[float, ...] = ()
    if status == "ok":
        required = {*tune.objectives, *tune.constraints}
        _check_names(tune, outcome.measured["metrics"])
        unmeasured = sorted(required - metrics.keys())
        if unmeasured:
            status, reason = "failed", f"not measured on this cell: {', '.join(unmeasured)}"
        else:
            losses = _losses(tune, metrics)
            constraints = {name: metrics[name] - most for name, most in tune.constraints.items()}
    record = TrialRecord(
        number=proposal.number,
        status=status,
        recipe=recipe_of(tune, proposal.params),
        choices=proposal.choices,
        params=proposal.params,
        metrics=metrics,
        losses=losses,
        feasible=all(value <= 0 for value in constraints.values()),
        key=key,
        evaluation=outcome.measured.get("evaluation", ""),
        reason=reason,
    )
    return create_trial(
        state=STATES[status],
        values=_values(tune, losses) if status == "ok" else None,
        params=proposal.params,
        distributions=proposal.distributions,
        system_attrs={**proposal.notes, **outcome.notes},
        user_attrs={RECORD: asdict(record)},
        intermediate_values=dict(outcome.reports),
        constraints=constraints or None,
    )


def _metrics(measured: Mapping[str, Any]) -> dict[str, float]:
    """metrics.json flat: what has a value, with its interval beside it, then the counts."""
    flat: dict[str, float] = {}
    for name, value in measured.get("metrics", {}).items():
        if value is None:
            continue
        flat[name] = value
        if name in measured["intervals"]:
            flat[f"{name}_low"], flat[f"{name}_high"] = measured["intervals"][name]
    return {**flat, **measured.get("counts", {})}


def _check_names(tune: Tune, metrics: Mapping[str, Any]) -> None:
    for where in ("objectives", "constraints"):
        for name in getattr(tune, where):
            if name not in metrics:
                raise StudyError(
                    f"tune/params.yaml: tune.{where}.{name}: evaluate writes no such metric; it "
                    f"writes {', '.join(metrics)}"
                )


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
