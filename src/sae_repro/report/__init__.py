"""Stage `report`: the results as a page, and an explorer of latents, as static files for git.

reports/index.html     everything to look at, in one file that needs no network
reports/explorer/      single latents: see `sae_repro.report.explorer`
"""

from sae_repro.contents import check
from sae_repro.files import replacing_folder
from sae_repro.params import Compare, Evaluate, Report, read_cells
from sae_repro.progress import say
from sae_repro.stage import StageContext


def run(context: StageContext) -> None:
    """Write reports/index.html and reports/explorer."""
    from pathlib import Path

    from sae_repro.numerics.determinism import prepare

    prepare(device="cpu", threads=1)

    from sae_repro.report.explorer import Source, mebibytes, write_data
    from sae_repro.report.page import copy_application, study_facts, write_empty, write_page
    from sae_repro.report.shown import shown_saes

    settings = context.section(Report, "report")
    targets = context.section(Compare, "compare").matched_l0
    evaluate = context.section(Evaluate, "evaluate")
    cells = read_cells(context.value("recipes"), context.value("cells"))
    artifacts, reports = Path("artifacts"), Path("reports")
    for stage in ("corpus", "subject", "train", "evaluate", "judge"):
        check(context.artifacts(stage))
    check(context.artifacts("extract"), "manifest.json")
    saes = shown_saes(cells, settings, targets, artifacts)
    study = study_facts(cells, artifacts)
    with replacing_folder(reports / "explorer") as folder:
        if saes:
            copy_application(folder)
            source = Source.read(artifacts, settings, evaluate, context.value("seed"))
            write_data(folder / "data", cells, saes, source, study)
        else:
            write_empty(folder, study)
    size = mebibytes(reports / "explorer")
    page = write_page(reports, cells, saes, artifacts, {**study, "explorer": size})
    say(f"report: {page}, {mebibytes(page)}; {len(saes)} SAEs in {reports / 'explorer'}, {size}")
