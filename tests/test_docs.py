"""README.md and docs/: what they name exists, what they show is valid, and the site builds.

Their Python is run by tests/pipeline/test_snippets.py.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from ruamel.yaml import YAML

from sae_repro.cli import app
from sae_repro.cli.schema import schemas
from sae_repro.metrics import METRICS
from sae_repro.params import Study, Tune, check_section, parse, read_yaml
from sae_repro.params.claims import Claims

from .track.chromium import Chromium, installed

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SCHEMA = schemas()["params.schema.json"]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fences(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text()) if found == language]


def code(page: Path) -> list[str]:
    """Every line of a fence and every code span of a page."""
    text = page.read_text()
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return spans + [line for _, block in FENCE.findall(text) for line in block.splitlines()]


# README.md


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_the_readme_has_the_measured_ratios_to_other_libraries() -> None:
    table = pd.read_csv(ROOT / "reports/benchmarks/peers.csv")
    steps = table[(table["group"] == "TopK") & (table["step"] == "TopK")]
    ms = steps.pivot(index=["bits", "size"], columns="library", values="ms")
    said = " ".join((ROOT / "README.md").read_text().split())
    assert ms.index.unique("size").sort_values().to_list() == ["L", "M", "S"]
    for library in ("SAELens", "sparsify"):
        ratio = ms["sae-repro"] / ms[library]
        assert f"{ratio.min():.2f} to {ratio.max():.2f} of {library}'" in said, library


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text()):
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


# what pages name


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    whole = typer.main.get_command(app)
    commands = whole.commands  # type: ignore[attr-defined]
    own = {o: set() for p in whole.params for o in p.opts}  # `sae-repro --version`
    options: dict[str, set[str]] = own | {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for name, command in commands.items()
    }
    for line in code(page):
        for verb, rest in re.findall(r"(?<![\w/.])sae-repro ([\w-]+)([^#|]*)", line):
            assert verb in options, line
            assert set(re.findall(r"--[a-z-]+", rest)) <= options[verb] | {"--help"}, line
        if line.startswith("--"):
            assert any(line.split()[0] in known for known in options.values()), line


@pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in code(page):
        assert set(re.findall(r"(?<![\w-])make ([a-z0-9-]+)", line)) <= targets, line


def places() -> list[str]:
    """The code spans of CONTRIBUTING.md that are a file or folder, or `file: name in it`."""
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    path = re.compile(r"[\w./-]*(/|\w\.(py|md|yaml|toml|yml|json))[\w./-]*(: \w+)?")
    return sorted({span for span in re.findall(r"`([^`]+)`", text) if path.fullmatch(span)})


@pytest.mark.parametrize("place", places())
def test_places_to_edit_exist(place: str) -> None:
    """A word in capitals stands for any name; paths start at the root, or at the package."""
    path, _, name = place.partition(": ")
    pattern = re.sub(r"\b[A-Z]+\b(?!\.md)|\bNAME\b", "*", path.rstrip("/"))
    if pattern.startswith("artifacts/"):
        return
    found = [file for base in (ROOT, ROOT / "src/sae_repro") for file in base.glob(pattern)]
    assert found, path
    assert not name or any(name in file.read_text() for file in found), place


@pages
def test_variables_are_read_somewhere(page: Path) -> None:
    read = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name in re.findall(r"SAE_REPRO_[A-Z_]+", page.read_text()):
        assert name in read, name


@pages
def test_keys_are_in_the_schema(page: Path) -> None:
    """`extract.n_tokens`, `cells.<name>.k`; neither modules nor files are meant."""
    sections = "|".join(Study.model_fields)
    files = ("md", "py", "json", "jsonl", "yaml", "csv", "png", "parquet")
    for span in code(page):
        module = ROOT / "src/sae_repro" / span.replace(".", "/")
        if module.is_dir() or module.with_suffix(".py").is_file() or span.endswith(files):
            continue
        if not re.fullmatch(rf"({sections})(\.[\w<>*]+)+", span):
            continue
        nodes = [SCHEMA]
        for part in span.split("."):
            nodes = [inner for node in nodes for inner in below(node, part)]
            assert nodes, span


def below(node: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The schemas of `name` in a JSON schema, whichever variant has it."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    for variant in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
        yield from below(variant, name)
    if name == "*":
        yield from node.get("properties", {}).values()
    elif name in node.get("properties", {}):
        yield node["properties"][name]
    elif isinstance(node.get("additionalProperties"), dict):
        yield node["additionalProperties"]
    yield from node.get("patternProperties", {}).values()


def test_every_metric_is_explained() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    for metric in METRICS:
        both = metric.name.replace("[", "").replace("]", "")  # with the part that one of two has
        for name in (metric.base, both):
            assert f"`{name}`" in text, name


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_pipeline_is_drawn_as_it_is(page: str) -> None:
    stages = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
    [drawing] = fences(ROOT / page, "mermaid")
    chains = [line.replace(" ", "").split("-->") for line in drawing.splitlines()[1:]]
    assert {node for chain in chains for node in chain} == set(stages)
    assert re.findall(r"^\| `(\w+)` \|", (ROOT / page).read_text(), re.M)[: len(stages)] == list(
        stages
    )
    for chain in chains:
        for a, b in pairwise(chain):
            outs = [next(iter(o)) if isinstance(o, dict) else o for o in stages[a]["outs"]]
            assert any(d.startswith(o) for d in stages[b]["deps"] for o in outs), f"{a} --> {b}"


# what pages show


@pages
def test_params_are_valid_in_the_root_study(page: Path) -> None:
    """Each fragment is merged into params.yaml, whose recipes it may use."""
    root = read_yaml(ROOT / "params.yaml")
    for block in fences(page, "yaml"):
        fragment = YAML(typ="safe").load(block.replace("…", "a" * 64))
        if set(fragment) == {"tune"}:
            check_section(Tune, fragment["tune"], within="tune").with_recipes(root["recipes"])
        elif set(fragment) == {"claims"}:
            check_section(Claims, fragment)
        else:
            parse(merged(root, fragment), source=f"{page.name}:\n{block}")


def merged(base: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `fragment`; a cell or a section with a source is replaced whole."""
    result = dict(base)
    for key, value in fragment.items():
        old = base.get(key)
        if key in ("cells", "recipes"):
            result[key] = {**base[key], **value}
        elif isinstance(value, dict) and isinstance(old, dict) and "source" not in value:
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


# the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, made without the package and without torch."""
    pytest.importorskip("mkdocs", reason="no mkdocs: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    for name in ("sae_repro", "torch"):
        path = folder / "hidden" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"raise ImportError('the site is built without {name}')\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "site"],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(folder / "hidden"), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


class Links(HTMLParser):
    """The links of a page (`a`), and the files that it loads (everything else)."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                (self.leads if tag == "a" else self.loads).append(value)


def test_the_site_is_complete_and_loads_nothing_from_elsewhere(site: Path) -> None:
    html = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(html) > 20
    for page in html:
        links = Links(page)
        for target in (*links.leads, *links.loads):
            outside = re.match(r"(\w+:)?//", target)
            assert not outside or target in links.leads, f"{page.name} loads {target}"
            path = target.partition("#")[0].partition("?")[0]
            if path and not outside and not target.startswith(("mailto:", "data:")):
                assert (page.parent / path).exists(), f"{page.name} links to {target}"


def test_linked_files_outside_docs_are_on_the_site(site: Path) -> None:
    for name in (
        "CONTRIBUTING.html",
        "params.yaml.html",
        "reports/figures/frontier.png",
        "reports/tables/cells.csv",
        "reports/tables/index.html",
        "tune/figures/front.png",
    ):
        assert (site / "repository" / name).is_file(), name
    assert "<svg" in (site / "index.html").read_text()


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="no mkdocs: pip install '.[docs]'")
    (tmp_path / "docs").mkdir()
    for name in ("mkdocs.yml", "docs/hooks.py", "docs/fields.py", "LICENSE"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    settings = (tmp_path / "mkdocs.yml").read_text()
    start, end = settings.index("nav:"), settings.index("validation:")
    (tmp_path / "mkdocs.yml").write_text(settings[:start] + settings[end:])
    for target, good in (
        ("../LICENSE", True), ("../NOWHERE", False), ("nowhere.md", False), ("#nowhere", False)
    ):  # fmt: skip
        (tmp_path / "docs/index.md").write_text(f"# Start\n\n[a link]({target})\n")
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build"], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode == 0) is good, f"{target}: {done.stderr}"


def test_search_works_without_a_server(site: Path, tmp_path: Path) -> None:
    program = installed()
    if program is None:
        pytest.skip("no Chromium: search is not tried in a browser")
    browser = Chromium(program, tmp_path)
    try:
        browser.open(site.joinpath("index.html").as_uri())
        browser.wait_for("document.readyState == 'complete'", 30)
        browser.evaluate("document.querySelector('[data-md-toggle=search]').click()")
        browser.evaluate(
            "(query => { query.focus(); query.value = 'absorption';"
            " query.dispatchEvent(new Event('keyup', {bubbles: true})) })"
            "(document.querySelector('[data-md-component=search-query]'))"
        )
        browser.wait_for("document.querySelectorAll('.md-search-result__item').length > 1", 30)
    finally:
        browser.close()
    assert not browser.errors
    assert not [url for url in browser.requests() if not url.startswith(("file:", "data:"))]
