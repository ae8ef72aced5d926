"""Verbs of DVC that read commits, in a clone as it is: no artifacts, no cache, no remote."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
COLUMNS = 12
"""Of a table that fits a terminal."""


def test_metrics_show_has_a_row_per_cell(repository_clone: Path, run: Run) -> None:
    table = run("dvc", "metrics", "show", "--md", cwd=repository_clone).stdout.splitlines()
    header = [word.strip() for word in table[0].strip("|").split("|")]
    assert header[0] == "Path" and len(header) <= COLUMNS
    assert {"l0", "fvu", "ce_recovered_zero"} <= set(header)
    paths = [Path(line.split("|")[1].strip()) for line in table[2:] if line.startswith("|")]
    rows = {path.stem for path in paths if path.parts[0] == "reports"}  # others are of studies/
    with (repository_clone / "reports/tables/cells.csv").open() as file:
        assert rows == {row["cell"] for row in csv.DictReader(file) if row["status"] == "ok"}


def test_metrics_diff_names_the_number_that_changed(
    repository_clone: Path, copied: Callable[[Path], Path], run: Run
) -> None:
    folder = copied(repository_clone)
    path = sorted((folder / "reports/metrics").glob("*.json"))[0]
    was = json.loads(path.read_text())
    path.write_text(json.dumps(was | {"fvu": was["fvu"] + 0.5}))
    run("git", "commit", "-qam", "Another number", cwd=folder)
    diff = json.loads(run("dvc", "metrics", "diff", "HEAD~1", "--json", cwd=folder).stdout)
    name = path.relative_to(folder).as_posix()
    assert list(diff) == [name] and list(diff[name]) == ["fvu"]
    assert diff[name]["fvu"]["diff"] == pytest.approx(0.5)
    table = run("dvc", "metrics", "diff", "HEAD~1", "--md", cwd=folder).stdout
    assert table.splitlines()[0].count("|") - 1 <= COLUMNS


def test_params_diff_names_the_value_that_changed(repository_clone: Path, run: Run) -> None:
    diff = json.loads(run("dvc", "params", "diff", "HEAD~1", "--json", cwd=repository_clone).stdout)
    assert list(diff) == ["params.yaml"]
    assert list(diff["params.yaml"]) == ["compare.bootstrap"]


@pytest.mark.parametrize(
    "words",
    [
        ("exp", "show", "--no-pager", "--only-changed"),
        ("exp", "show", "--csv"),
        ("exp", "diff", "HEAD~1", "HEAD"),
        ("diff", "HEAD~1"),
        ("gc", "--all-branches", "--dry", "--force"),
        ("status",),
        ("dag", "--md"),
    ],
    ids=" ".join,
)
def test_a_verb_that_reads_commits_works(
    repository_clone: Path, run: Run, words: tuple[str, ...]
) -> None:
    done = run("dvc", *words, cwd=repository_clone)
    assert "validation failed" not in done.stderr and "failed to load" not in done.stderr


def test_exp_show_reads_every_number_of_a_commit(repository_clone: Path, run: Run) -> None:
    rows = json.loads(run("dvc", "exp", "show", "--json", cwd=repository_clone).stdout)
    assert len(rows) == 2  # the workspace, HEAD
    for row in rows:
        files = row["data"]["metrics"]
        assert files and not any("error" in entry for entry in files.values())


def test_plots_are_drawn_by_our_templates(repository_clone: Path, run: Run, tmp_path: Path) -> None:
    words = ("plots", "diff", "HEAD~1", "--out", str(tmp_path))
    run("dvc", *words, cwd=repository_clone)
    page = (tmp_path / "index.html").read_text()
    specs = [json.loads(text) for text in re.findall(r"var spec = (\{.*\});", page)]
    studies = list(repository_clone.glob("studies/*/dvc.yaml"))
    assert len(specs) == 3 * (1 + len(studies))
    for spec in specs:
        points = spec["data"]["values"]
        assert {"workspace", "HEAD~1"} == {point["rev"] for point in points}
        assert not set(fields(spec)) - set(points[0]), "no such column"
    frontier = next(s for s in specs if "hconcat" in s)
    drawn = frontier["hconcat"][0]["spec"]
    assert drawn["encoding"]["x"]["scale"]["type"] == "log"
    assert drawn["layer"][0]["encoding"]["y"]["scale"]["type"] == "log"
    named = {point["architecture"] for point in frontier["data"]["values"]}
    assert not [name for name in named if "untrained" in name or "random weights" in name]


def fields(part: Any) -> list[str]:
    """Every `field` in a Vega-Lite specification."""
    if isinstance(part, list):
        return [name for each in part for name in fields(each)]
    if not isinstance(part, dict):
        return []
    own = [part["field"]] if isinstance(part.get("field"), str) else []
    return own + [n for key, each in part.items() if key != "values" for n in fields(each)]


def test_the_page_of_plots_says_that_it_needs_a_network(
    repository_clone: Path, run: Run, tmp_path: Path
) -> None:
    run("dvc", "plots", "show", "--out", str(tmp_path), cwd=repository_clone)
    page = (tmp_path / "index.html").read_text()
    notice = page.index('id="without-network"')
    assert "<noscript>" in page
    # before the scripts, for which a browser without a network waits
    assert notice < page.index("cdn.jsdelivr.net/npm") < page.index("vegaEmbed('#")
    for source in re.findall(r'<img src="\.\./(.*?)"', page):
        assert source.startswith("reports/figures/")


def test_a_browser_without_a_network_shows_the_notice(
    repository_clone: Path, run: Run, tmp_path: Path
) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium to open the page in")
    run("dvc", "plots", "show", "--out", str(tmp_path), cwd=repository_clone)
    page = run(
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"file://{tmp_path / 'index.html'}", cwd=tmp_path,
    ).stdout  # fmt: skip
    assert re.search(r'id="without-network" style="display: block;?"', page)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("dvc", "pull"), 1, "artifacts/train"),
        (("dvc", "checkout"), 255, "artifacts/train"),
        (("dvc", "exp", "save"), 1, "does not exist"),
        (("sae-repro", "track", "--commit", "HEAD"), 2, "`dvc pull`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_needs_artifacts_says_so(
    repository_clone: Path,
    copied: Callable[[Path], Path],
    run: Run,
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    """A clone without a remote has none; docs/reproduction.md says how to get them."""
    done = run(*words, cwd=copied(repository_clone), code=code)
    assert says in done.stdout + done.stderr


def test_a_folder_that_git_ignores_is_none_to_dvc(
    repository_clone: Path, copied: Callable[[Path], Path], run: Run
) -> None:
    """A dvc.yaml that can't be read, in an environment or a build, breaks no command."""
    folder = copied(repository_clone)
    ignored = io.StringIO((folder / ".gitignore").read_text())
    # artifacts and judge are outputs, which DVC does not search
    outputs = {"artifacts", "judge"}
    names = [line.strip().strip("/") for line in ignored if line.strip().endswith("/")]
    for name in names:
        if "*" not in name and name not in outputs:
            (folder / name / "sub").mkdir(parents=True, exist_ok=True)
            (folder / name / "sub" / "dvc.yaml").write_text("stages: [no, stages]\n")
    run("dvc", "params", "diff", "HEAD~1", cwd=folder)
    run("dvc", "metrics", "show", cwd=folder)
