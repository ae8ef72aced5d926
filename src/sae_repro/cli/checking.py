"""The command `check`: a study validated before any compute is spent on it."""

import sys
from collections.abc import Iterator
from pathlib import Path

from sae_repro import params
from sae_repro.numerics.kernels import choose


def check_lines(study: Path, *, probe: bool) -> Iterator[str]:
    """What the study in a folder is; with `probe`, what a batch through its subject shows.

    StudyError, a line per fault, where it is not valid.
    """
    loaded = params.load(study / "params.yaml")
    if probe and not {"numpy", "torch"} & set(sys.modules):
        choose(loaded.compute.bits)  # the speed of the stages is that of their kernels

    from sae_repro.cli.claims import check_claims, check_worlds, unlisted_metrics
    from sae_repro.cli.describe import summary
    from sae_repro.cli.outside import check_version
    from sae_repro.cli.own_inputs import check_own_inputs
    from sae_repro.cli.own_models import check_own_models
    from sae_repro.cli.pipelines import check_copy, check_place
    from sae_repro.preflight import check_inputs

    check_place(study / loaded.root)
    check_copy(study, loaded.root)
    check_inputs(loaded, study)
    check_own_models(loaded, study)
    check_own_inputs(loaded, study)
    check_version(study)
    if loaded.judge.prompts:
        from sae_repro.judge.prompts import load_prompts

        load_prompts(loaded.judge, study)
    check_worlds(loaded, study)
    lines = [summary(loaded)]
    if found := check_claims(loaded, study):
        lines.append(f"ok: {len(found)} claims")
        lines += unlisted_metrics(found, study)
    if (study / "tune" / "params.yaml").exists():
        from sae_repro.tune.rounds import check_all_kept
        from sae_repro.tune.space import load_tune, total

        tune, corners = load_tune(study)
        check_all_kept(loaded.extract, study)
        check_inputs(corners, study)
        lines.append(f"ok: tune, {total(tune)} trials over {', '.join(tune.recipes)}")
    yield from lines
    if probe:
        from sae_repro.cli.probing import probe_lines

        yield from probe_lines(loaded, study)
