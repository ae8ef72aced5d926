"""The wheel: what is in it, and a study made from it outside any checkout, run to its end."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sae_repro.closure import code_digest

from ..pipeline.conftest import PARAMS, ROOT, small_text

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout's files, built without a network."""
    pytest.importorskip("setuptools", minversion="77", reason="no setuptools to build a wheel with")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", ".", ":!tests", ":!reports", ":!docs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    source = tmp_path_factory.mktemp("source")
    for name in listed:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "--no-index", "-w", source / "dist", source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [path] = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
         "--target", folder, wheel], check=True,
    )  # fmt: skip
    return folder


class Outside:
    """A folder outside any checkout, where only the installed package is imported."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder, self.installed = folder, installed

    def run(self, *command: str, at: str = ".", code: int = 0) -> str:
        """The output of a command, whose exit code is `code`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC_"))}
        environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.installed),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        done = subprocess.run(
            command, cwd=self.folder / at, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def sae_repro(self, *arguments: str, at: str = ".", code: int = 0) -> str:
        """The output of `sae-repro` with `arguments`."""
        program = "from sae_repro.cli import main; main()"
        return self.run(sys.executable, "-c", program, *arguments, at=at, code=code)


@pytest.fixture
def outside(tmp_path: Path, installed: Path) -> Outside:
    return Outside(tmp_path, installed)


def test_the_wheel_has_what_a_study_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name.removeprefix("sae_repro/cli/template/") for name in names}
    assert {"dvc.yaml", "params.yaml", "tune/dvc.yaml", "tune/params.yaml"} <= packed
    assert {f"stages/{stage}.py" for stage in STAGES} <= packed
    assert {f"studies/templates/{path.name}" for path in ROOT.glob("studies/templates/*.yaml")} <= (
        packed
    )
    plots = {f".dvc/plots/{path.name}" for path in (ROOT / ".dvc/plots").iterdir()}
    assert plots and plots <= packed
    assert "sae_repro/py.typed" in names
    assert "sae_repro/judge/prompts/explain.md" in names
    assert "sae_repro/latents/explanation.html.jinja" in names
    shown = {path.name for path in (ROOT / "src/sae_repro/report/web").iterdir()}
    assert {"explorer.html", "explorer.js", "explorer.css", "charts.js", "LICENSES.txt"} <= shown
    assert {f"sae_repro/report/web/{name}" for name in shown} <= names


def test_code_of_the_wheel_decides_what_that_of_the_checkout_does(installed: Path) -> None:
    for stage in STAGES:
        module = f"sae_repro.{stage}"
        assert code_digest(installed, module) == code_digest(ROOT / "src", module)


@pytest.mark.slow
def test_init_makes_a_study_of_every_template(outside: Outside) -> None:
    where = "import sae_repro; print(sae_repro.__file__)"
    assert str(outside.installed) in outside.run(sys.executable, "-c", where)
    for name in ("demo", "embedded", *(p.stem for p in ROOT.glob("studies/templates/*.yaml"))):
        shutil.rmtree(outside.folder / "study", ignore_errors=True)
        outside.sae_repro("init", "study", "--from", name, "--tune")
        assert "ok: tune" in outside.sae_repro("check", at="study")
        assert (outside.folder / "study/.git").is_dir()
        assert "./src" not in (outside.folder / "study/dvc.yaml").read_text()
    assert "did you mean demo" in outside.sae_repro("init", "b", "--from", "dmeo", code=2)
    assert not (outside.folder / "b").exists()
    assert "not empty" in outside.sae_repro("init", "study", code=2)


def test_init_brings_claims_and_searches_only_what_recipes_read(outside: Outside) -> None:
    """The embedded study names claims.yaml; the demo's recipes revive by nothing."""
    outside.sae_repro("init", "study", "--from", "embedded")
    assert (outside.folder / "study/claims.yaml").read_bytes() == (
        ROOT / "claims.yaml"
    ).read_bytes()
    assert "claims" in outside.sae_repro("check", at="study")
    shutil.rmtree(outside.folder / "study")
    outside.sae_repro("init", "study", "--from", "demo", "--tune")
    assert "ok: tune" in outside.sae_repro("check", at="study")
    searched = (outside.folder / "study/tune/params.yaml").read_text()
    assert "lambda" in searched and "auxk_coefficient" not in searched


def test_the_search_starts_from_recipes_that_the_study_has(outside: Outside) -> None:
    outside.sae_repro("init", "study", "--from", "gpt2-agnews", "--tune")
    study = outside.folder / "study"
    assert outside.sae_repro("check", at="study").endswith("trials over vanilla, topk\n")
    (study / "tune/params.yaml").unlink()
    params = (study / "params.yaml").read_text()
    (study / "params.yaml").write_text(params.replace("topk: {a", "mine: {a").replace(
        "recipe: topk", "recipe: mine"))  # fmt: skip
    outside.sae_repro("init", "--renew", "--tune", at="study")
    assert outside.sae_repro("check", at="study").endswith("trials over vanilla\n")
    (study / "tune/params.yaml").unlink()
    (study / "params.yaml").write_text(
        params.split("recipes:")[0] + "recipes: {}\ncells: {neurons: {baseline: neurons}}\n"
    )
    refused = outside.sae_repro("init", "--renew", "--tune", at="study", code=2)
    assert (
        "recipes has none of batchtopk, gated, jumprelu, matryoshka-fixed, topk, vanilla" in refused
    )


@pytest.mark.parametrize("around", [False, True], ids=["its own", "around it"])
def test_dvc_draws_the_plots_of_a_study_in_a_repository(outside: Outside, around: bool) -> None:
    place = outside.folder / ("" if around else "study")
    if around:
        outside.run("git", "init", "-q")
        outside.run("dvc", "init", "-q")
        (outside.folder / ".dvc/plots").mkdir()
        (outside.folder / ".dvc/plots/page.html").write_text("{plot_divs} theirs")
    outside.sae_repro("init", "study")
    for name in ("frontier.json", "training.json", "over_lambda.json"):
        packed = (ROOT / ".dvc/plots" / name).read_text()
        assert (place / ".dvc/plots" / name).read_text() == packed
    shutil.copytree(ROOT / "reports/plots", outside.folder / "study/reports/plots")
    outside.run("dvc", "plots", "show", at="study")
    page = (outside.folder / "study/dvc_plots/index.html").read_text()
    assert "Sparsity against reconstruction" in page
    if around:
        assert (outside.folder / ".dvc/plots/page.html").read_text() == "{plot_divs} theirs"
    else:
        assert "These plots need a network" in page


def test_new_makes_studies_beside_that_of_init(outside: Outside) -> None:
    outside.sae_repro("init", "study", "--from", "demo")
    assert "gpt2-openwebtext" in outside.sae_repro("new", "--list", at="study")
    made = outside.sae_repro("new", "stories", "--from", "tinystories", at="study")
    assert made == (
        "made studies/stories from the template tinystories\n"
        "next: dvc repro studies/stories/dvc.yaml\n"
    )
    outside.sae_repro("new", "copy", at="study")
    for name in ("stories", "copy"):
        assert "ok: " in outside.sae_repro("check", f"studies/{name}", at="study")
        pipeline = (outside.folder / "study/studies" / name / "dvc.yaml").read_text()
        assert "- ../../code/train.txt\n" in pipeline and "python ../../stages/" in pipeline
        status = outside.run("dvc", "status", f"studies/{name}/dvc.yaml", at="study")
        assert "modified:           code/train.txt" in status, "new to this study; not missing"
    (outside.folder / "study/code/train.txt").write_text("0" * 64 + "\n")
    refused = outside.sae_repro("check", "studies/copy", at="study", code=2)
    assert "has other code for train\n" in refused


def test_init_inside_a_repository_makes_no_other(outside: Outside) -> None:
    outside.run("git", "init", "-q")
    outside.sae_repro("init", "study")
    assert not (outside.folder / "study/.git").exists()
    assert (outside.folder / "study/.dvc").is_dir()
    assert "corpus" in outside.run("dvc", "stage", "list", at="study")


def test_other_code_or_libraries_are_refused_until_renewed(outside: Outside) -> None:
    outside.sae_repro("init", "study")
    study = outside.folder / "study"
    before = {path: path.read_text() for path in study.glob("code/*.txt")}
    assert "nothing to renew" in outside.sae_repro("init", "--renew", at="study")
    (study / "code/train.txt").write_text("0" * 64 + "\n")
    lock = (study / "requirements.lock").read_text()
    (study / "requirements.lock").write_text(
        lock.replace(next(line for line in lock.splitlines() if line.startswith("numpy==")),
                     "numpy==1.0")
    )  # fmt: skip
    refused = outside.sae_repro("check", at="study", code=2)
    assert "has other code for train\n" in refused and "numpy 1.0; installed is" in refused
    assert "train: requirements.lock: numpy 1.0" in outside.run(
        sys.executable, "-c",
        "import os; os.environ['DVC_STAGE'] = 'train'\n"
        "import runpy; runpy.run_path('stages/train.py')", at="study", code=2,
    )  # fmt: skip
    renewed = outside.sae_repro("init", "--renew", at="study")
    assert "renewed code/train.txt" in renewed and "renewed requirements.lock" in renewed
    assert before == {path: path.read_text() for path in study.glob("code/*.txt")}
    assert (study / "requirements.lock").read_text() == lock
    outside.sae_repro("check", at="study")


@pytest.mark.slow
def test_a_study_runs_to_its_end_outside_a_checkout(outside: Outside) -> None:
    outside.sae_repro("init", "demo")
    demo = outside.folder / "demo"
    pin = small_text(demo / "text.jsonl")
    (demo / "params.yaml").write_text(
        PARAMS.replace("PIN", pin).replace("[METRICS]", "[dictionary]")
    )
    outside.run("dvc", "repro", at="demo")
    assert "up to date" in outside.run("dvc", "status", at="demo")
    assert (demo / "reports/metrics.json").is_file() and (demo / "mlflow.db").is_file()
    assert "Running" not in outside.run("dvc", "repro", at="demo")
    outside.run("dvc", "plots", "show", at="demo")
    assert "These plots need a network" in (demo / "dvc_plots/index.html").read_text()
    assert outside.sae_repro("cells", at="demo").count(" yes") == 6
    assert "runs created: 0, runs unchanged: 4" in outside.sae_repro("track", at="demo")
    assert "identical" in outside.sae_repro("verify", ".", at="demo")
    # other code makes its own stage stale, and no other
    (demo / "code/compare.txt").write_text("0" * 64 + "\n")
    assert outside.run("dvc", "status", at="demo").count("changed deps") == 1
    outside.sae_repro("init", "--renew", at="demo")
    assert "up to date" in outside.run("dvc", "status", at="demo")
