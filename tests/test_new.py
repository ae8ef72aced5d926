"""`sae-repro new`: copies, templates, and grids that fit a text and a model of one's own."""

import json
import random
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from sae_repro.cli import app, bringing
from sae_repro.cli.claims import check_worlds
from sae_repro.cli.grid import Fit
from sae_repro.cli.measuring import MIN_TOKENS, TextSize
from sae_repro.cli.own_text import study_yaml
from sae_repro.cli.pipelines import check_copy, seen_from
from sae_repro.cli.studies import pin_inputs
from sae_repro.errors import StudyError
from sae_repro.files import sha256_file
from sae_repro.hub import unreachable
from sae_repro.params import Study, load, parse
from sae_repro.preflight import check_inputs

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = sorted(path.stem for path in (ROOT / "studies/templates").glob("*.yaml"))
runner = CliRunner()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a checkout that `new` needs."""
    folder = tmp_path / "checkout"
    (folder / "stages").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "studies/templates", folder / "studies/templates")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A csv outside the checkout, barely enough for a study: 400 documents of 40 words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(300)]
    lines = [f"a,{' '.join(rng.choices(words, k=40))},x" for _ in range(400)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["title,body,kind", *lines]) + "\n")
    return path


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 0, result.exception
    return result.output


def refused(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments))
    assert isinstance(result.exception, StudyError), result.output
    return str(result.exception)


def studies(checkout: Path) -> list[str]:
    return sorted(p.name for p in (checkout / "studies").iterdir() if p.name != "templates")


def test_a_copy_has_the_cells_and_a_pipeline_of_its_own(checkout: Path) -> None:
    message = invoke("new", "copy")
    assert "next: dvc repro studies/copy/dvc.yaml" in message
    folder = checkout / "studies/copy"
    assert not (folder / "dvc.yaml").is_symlink(), "DVC reads no link in a commit"
    study = load(folder / "params.yaml")
    assert (folder / "dvc.yaml").read_text() == seen_from(
        "../..", (checkout / "dvc.yaml").read_text()
    )
    check_copy(folder, study.root)
    assert study.root == "../.."
    assert study.cells == load(checkout / "params.yaml").cells
    text = (folder / "params.yaml").read_text()
    assert text.startswith(
        "# yaml-language-server: $schema=../../params.schema.json\n"
        "# Study copy, a copy of the root study."
    )
    assert text.count("yaml-language-server") == 1


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_become_studies_that_pass_the_check(checkout: Path, template: str) -> None:
    invoke("new", "x", "--from", template)
    assert invoke("check", "studies/x").startswith("ok: ")
    made = load(checkout / "studies/x/params.yaml")
    assert made.cells == load(ROOT / f"studies/templates/{template}.yaml").cells
    first = (checkout / "studies/x/params.yaml").read_text().splitlines()[1]
    assert first.startswith(f"# Study x, a copy of the template {template}.")


def test_the_list_says_what_each_template_is(checkout: Path) -> None:
    lines = {line.split()[0]: line for line in invoke("new", "--list").splitlines()}
    assert set(lines) == set(TEMPLATES)
    assert "published grid on GPT-2 small" in lines["gpt2-openwebtext"]
    assert all(len(line.split()) > 5 for line in lines.values())


def test_without_templates_those_of_the_package_are_used(checkout: Path) -> None:
    shutil.rmtree(checkout / "studies")
    invoke("new", "x", "--from", "demo")
    assert load(checkout / "studies/x/params.yaml").track.experiment == "demo"


def test_a_copy_of_a_study_elsewhere_brings_all_that_it_reads(
    checkout: Path, text: Path, tmp_path: Path
) -> None:
    invoke("new", "mine", "--text", str(text), "--column", "body")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(checkout / "studies/mine", elsewhere)
    spans = {"document": [0], "start": [0], "end": [1], "concept": ["x"]}
    pd.DataFrame(spans).to_parquet(elsewhere / "spans.parquet")
    (elsewhere / "prompt.md").write_text("version: 1\n\nwords")
    (elsewhere / "world.yaml").write_text("atoms: 12\n")
    yaml = YAML()
    raw = yaml.load(elsewhere / "params.yaml")
    raw["evaluate"]["concepts"] = {"path": "spans.parquet", "sha256": "0" * 64}
    raw["judge"]["prompts"] = {"explain": {"path": "prompt.md", "sha256": "0" * 64}}
    raw["control"]["worlds"] = [{"path": "world.yaml", "sha256": "0" * 64}]
    yaml.dump(raw, elsewhere / "params.yaml")
    pin_inputs(elsewhere)
    pinned = load(elsewhere / "params.yaml")
    invoke("new", "copy", "--from", str(elsewhere / "params.yaml"))
    shutil.rmtree(elsewhere)
    folder = checkout / "studies/copy"
    study = load(folder / "params.yaml")
    check_inputs(study, folder)
    inputs = sorted(p.name for p in (folder / "inputs").iterdir())
    assert inputs == ["mine.csv", "prompt.md", "spans.parquet", "world.yaml"]
    assert study.evaluate.concepts is not None and pinned.evaluate.concepts is not None
    assert study.evaluate.concepts.sha256 == pinned.evaluate.concepts.sha256
    (world,) = study.control.worlds
    assert not isinstance(world, str) and world.path == "inputs/world.yaml"
    check_worlds(study, folder)


def test_text_of_ones_own_is_copied_pinned_and_given_a_grid(checkout: Path, text: Path) -> None:
    message = invoke("new", "mine", "--text", str(text), "--column", "body", "--label", "kind")
    assert f"copied {text} to studies/mine/inputs/mine.csv: commit it" in message
    text.unlink()
    folder = checkout / "studies/mine"
    study = load(folder / "params.yaml")
    check_inputs(study, folder)
    source = study.corpus.source
    assert source.kind == "files"
    assert source.files == {"inputs/mine.csv": sha256_file(folder / "inputs/mine.csv")}
    assert source.columns == ("body",) and source.label == "kind"
    assert study.subject.training is not None
    assert study.extract.hooks == ("blocks.1.hook_resid_post",)
    assert study.track.experiment == "mine"
    written = (folder / "params.yaml").read_text()
    assert "published" not in written and "0.07" not in written, "claims about the root study"


def test_a_value_that_dvc_sets_in_a_new_study_is_one_changed_line(
    checkout: Path, text: Path
) -> None:
    """A new params.yaml is laid out as `dvc exp run -S` writes it."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    invoke("new", "mine", "--text", str(text), "--column", "body", "--label", "kind")
    path = checkout / "studies/mine/params.yaml"
    before = path.read_text()
    hydra.apply_overrides(path, ["seed=7"])
    changed = [
        pair for pair in zip_longest(before.splitlines(), path.read_text().splitlines())
        if pair[0] != pair[1]
    ]  # fmt: skip
    assert changed == [("seed: 0", "seed: 7")]


def test_text_in_the_repository_stays_unless_git_ignores_it(checkout: Path, text: Path) -> None:
    for folder in ("data", ":(glob)i", "ignored"):
        (checkout / folder).mkdir()
        shutil.copy(text, checkout / folder)
    subprocess.run(["git", "init", "-q"], check=True)
    Path(".gitignore").write_text("/ignored/\n/:(glob)i/\n")
    for number, (folder, place) in enumerate(
        {"data": "../../data/mine.csv", "ignored": "inputs/mine.csv", ":(glob)i": "inputs/mine.csv"}
        .items()
    ):  # fmt: skip
        invoke("new", f"x{number}", "--text", f"{folder}/mine.csv", "--column", "body")
        source = load(checkout / f"studies/x{number}/params.yaml").corpus.source
        assert source.kind == "files" and list(source.files) == [place]


def test_large_text_is_kept_by_dvc(
    checkout: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "SMALL_BYTES", 100)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    message = invoke("new", "mine", "--text", str(text), "--column", "body")
    assert "added it to DVC: commit studies/mine/inputs/mine.csv.dvc" in message
    ignored = ["git", "check-ignore", "-q", "studies/mine/inputs/mine.csv"]
    assert subprocess.run(ignored).returncode == 0
    check_inputs(load(checkout / "studies/mine/params.yaml"), checkout / "studies/mine")


NAMES = ["news[1].csv", "a::b.csv", "${root}.csv", "$HOME.csv", "100%.csv", "*.csv", "who?.csv",
         "-dash.csv", "--text.csv", "two words.csv", "it's \"so\".csv", "a: b #c.csv", "é→🙂.csv",
         "? x.csv", "{a, b}.csv", "&anchor.csv", "@at.CSV", "s3:.csv", "a\\b.csv",
         "~.csv", ":(glob)**.csv", "!no.csv", "x" * 150 + ".csv"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_brought_pinned_checked_and_read(
    checkout: Path, text: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside siblings that its name would match as a pattern."""
    subprocess.run(["git", "init", "-q"], check=True)
    folder = text.parent / "in [1] * ${x} :: % folder"
    folder.mkdir()
    shutil.copy(text, folder / name)
    for sibling in ("news1.csv", "a.csv", "whom.csv", "no.csv"):
        if sibling != name:
            (folder / sibling).write_text("body\nthe sibling\n")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("x", "y")
    invoke("new", "mine", "--text", str(folder / name), "--column", "body")
    study = checkout / "studies/mine"
    source = load(study / "params.yaml").corpus.source
    assert source.kind == "files" and list(source.files) == [f"inputs/{name}"]
    brought = study / "inputs" / name
    assert brought.read_bytes() == text.read_bytes()
    assert re.search(r"^ok: .*, K \d+$", invoke("check", str(study)), re.M)
    brought.write_bytes(text.read_bytes() + b"a,one more text,x\n")
    assert "has changed" in refused("check", str(study))
    invoke("pin", str(study))
    assert invoke("check", str(study)).startswith("ok: ")
    pinned = load(study / "params.yaml").corpus.source
    assert pinned.kind == "files" and pinned.files == {f"inputs/{name}": sha256_file(brought)}
    invoke("new", "copy", "--from", str(study))
    copied = load(checkout / "studies/copy/params.yaml").corpus.source
    assert copied.kind == "files" and list(copied.files) == [f"../mine/inputs/{name}"]


def test_a_link_is_brought_under_its_own_name(checkout: Path, text: Path) -> None:
    """What it points to may end in no .csv, as in a store of contents."""
    blob = text.rename(text.with_name("0123abcd"))
    text.symlink_to(blob)
    invoke("new", "mine", "--text", str(text), "--column", "body")
    brought = checkout / "studies/mine/inputs/mine.csv"
    assert not brought.is_symlink() and brought.read_bytes() == blob.read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text + "a,late,x,\n", "inputs/mine.csv: row 401 (line 402) has 4 fields"),
        (lambda text: text.replace("body", "text"), "source.columns = body: inputs/mine.csv"),
        (lambda text: text.replace("kind", "body"), "has 2 columns of this name"),
        (lambda text: "title,body,kind\n" + 400 * "a,the same text,x\n",
         "corpus: 400 documents; 399 of them copies of others, which share a split leave none for"),
        (lambda text: "title,body,kind\n" + 400 * "a,,x\n", "no documents in it; 400 rows without"),
    ],
)  # fmt: skip
def test_check_reads_the_text_to_its_end(
    checkout: Path, text: Path, change: Callable[[str], str], says: str
) -> None:
    invoke("new", "mine", "--text", str(text), "--column", "body")
    folder = checkout / "studies/mine"
    path = folder / "inputs/mine.csv"
    path.write_text(change(path.read_text()))
    invoke("pin", str(folder))
    assert says in refused("check", str(folder))
    assert says.replace("inputs/mine", "../mine/inputs/mine") in refused("new", "x", "--from",
                                                                         str(folder))  # fmt: skip


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ("document,start,end,concept\n0,0,1,x\n", None),
        ("document,start,end,concept\n0,0,1,x\n400,0,1,x\n",
         "row 2: document 400 does not exist: the text has 400 rows"),
        ("document,start,end,concept\n0.0,0,1,x\n", "row 1 (line 2), column document: holds 0.0"),
        ("document,start,concept\n0,0,x\n", "the column end: spans.csv has no such column"),
    ],
)  # fmt: skip
def test_check_reads_labels_of_ones_own(
    checkout: Path, text: Path, spans: str, says: str | None
) -> None:
    invoke("new", "mine", "--text", str(text), "--column", "body")
    folder = checkout / "studies/mine"
    (folder / "spans.csv").write_text(spans)
    yaml = YAML()
    raw = yaml.load(folder / "params.yaml")
    raw["evaluate"]["concepts"] = {"path": "spans.csv", "sha256": "0" * 64}
    yaml.dump(raw, folder / "params.yaml")
    invoke("pin", str(folder))
    if says is None:
        assert invoke("check", str(folder)).startswith("ok: ")
    else:
        assert says in refused("check", str(folder))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "a line of text\n" * 3000, "no blank line, so that it is one document"),
        ("a.csv", "text\n" + "the same text\n" * 3000, "2,999 of them copies of others"),
        ("a.csv", "text\n" + "the same text\n" * 3000, "; give more documents that differ"),
        ("a.csv", "text,b\n" + ",1\n" * 3000 + "one two,1\n", "3,000 rows without text left out"),
        ("a.csv", "text\n" + "x\n" * 3000, "0 documents; 3,000 rows of one token left out"),
    ],
)
def test_too_little_text_is_refused_with_what_was_found(
    checkout: Path, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    assert says in refused("new", "x", "--text", str(tmp_path / name))
    assert studies(checkout) == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (2, r"a.csv: 2 documents, \d+ tokens found; at least about 50 documents and 15,000 tokens"),
        (60, r"60 documents, 420 tokens found; .* 10,000 tokens in 20 documents to train on"),
    ],
)
def test_too_little_text_is_refused_with_what_is_needed(
    checkout: Path, tmp_path: Path, rows: int, says: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "".join(f"only a few words of text {n}\n" for n in range(rows)))
    message = refused("new", "x", "--text", str(path))
    assert re.search(says, message), message
    assert studies(checkout) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["copy"], "exists already"),
        ([], "NAME: missing"),
        (["Bad.Name"], "lower-case letters"),
        (["templates"], "folder of templates"),
        (["x", "--text", "nothing.txt"], "no such file"),
        (["x", "--column", "a"], "describe a --text file"),
        (["x", "--model", "someone/model"], "name its --text"),
        (["x", "--from", "gpt2-agnews", "--text", "a.csv"], "leave --from out"),
        (["x", "--text", "a.csv", "--dataset", "a/b"], "a study has one text"),
        (["x", "--hook", "blocks.9.hook_mlp_out"], "layers 0 … 2"),
        (["x", "--from", "elsewhere"], "templates are demo, gpt2-agnews"),
    ],
)
def test_new_refuses_and_leaves_nothing(checkout: Path, arguments: list[str], says: str) -> None:
    invoke("new", "copy")
    assert says in refused("new", *arguments)
    assert studies(checkout) == ["copy"]


def test_new_refuses_a_hook_on_which_two_cells_are_one(checkout: Path) -> None:
    path = checkout / "params.yaml"
    seeded = "  topk-x8-k16: {recipe: topk, k: 16, seeds: [0, 1, 2]}\n"
    assert seeded in path.read_text()
    path.write_text(path.read_text().replace(seeded, "  topk-x8-k16: {recipe: topk, k: 16}\n"))
    message = refused("new", "x", "--hook", "blocks.1.hook_resid_post")
    assert "mlp-topk-x8-k16: the same cell as topk" in message
    assert studies(checkout) == []


def test_new_on_real_news(checkout: Path, shared: Path) -> None:
    path = shared / "data/ag_news/test.csv"
    invoke("new", "news", "--text", str(path), "--column", "title", "--column", "description",
           "--label", "label")  # fmt: skip
    folder = checkout / "studies/news"
    study = load(folder / "params.yaml")
    check_inputs(study, folder)
    fits(study, d_model=64)


def test_new_on_a_real_model_and_its_text(checkout: Path, shared: Path) -> None:
    message = invoke(
        "new", "tiny", "--text", str(shared / "data/tinystories/samples.jsonl"),
        "--model", str(shared / "models/stories260k"), "--documents", "3000",
    )  # fmt: skip
    assert "hook: blocks.2.hook_resid_post, the middle of 5 layers" in message
    folder = checkout / "studies/tiny"
    study = load(folder / "params.yaml")
    check_inputs(study, folder)
    start = study.extract.model_copy(update={"prepend_bos": "</t>"})
    with pytest.raises(StudyError, match=r"extract\.prepend_bos = '</t>': no token .* '</s>'"):
        check_inputs(study.model_copy(update={"extract": start}), folder)
    assert study.subject.source.kind == "local"
    assert study.subject.source.path == "inputs/stories260k"
    assert study.extract.hooks == ("blocks.2.hook_resid_post",)
    # most rows begin within a story, and <s> says that one begins: by half a nat a token
    assert study.extract.prepend_bos is False
    assert re.search(r"rows that start with no token are better than with <s>: .* -0\.\d+ nats,"
                     r".* extract.prepend_bos: false", message)  # fmt: skip
    fits(study, d_model=64)


def test_new_on_words_that_leave_no_first_tokens_to_compare(
    checkout: Path, shared: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    model = shared / "models/stories260k"
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    pairs = [a + b for a in string.ascii_letters for b in string.ascii_letters]
    encoded = tokenizer.encode_batch(pairs, add_special_tokens=False)
    two = [pair for pair, encoding in zip(pairs, encoded, strict=True) if len(encoding.ids) == 2]
    words = tmp_path / "words.txt"
    words.write_text("\n\n".join(random.Random(0).choices(two, k=12_000)))
    invoke("new", "words", "--text", str(words), "--model", str(model))
    assert load(checkout / "studies/words/params.yaml").extract.prepend_bos is True


@pytest.mark.parametrize(
    ("file", "part", "says"),
    [
        ("config.json", {"max_position_embeddings": 1}, "config.json gives it 1 position"),
        ("tokenizer.json",
         {"normalizer": None, "pre_tokenizer": None, "added_tokens": [],
          "model": {"type": "WordLevel", "vocab": {"a": 0, "<s>": 1}, "unk_token": "b"}},
         "the tokenizer can't read the text (WordLevel error"),
    ],
)  # fmt: skip
def test_new_refuses_a_model_that_can_read_no_text(
    checkout: Path, text: Path, shared: Path, file: str, part: dict[str, Any], says: str
) -> None:
    model = shutil.copytree(shared / "models/stories260k", checkout / "model")
    content = json.loads((model / file).read_text()) | part
    (model / file).write_text(json.dumps(content))
    given = ("--text", str(text), "--column", "body", "--model", str(model))
    assert says in refused("new", "x", *given)


def fits(study: Study, d_model: int) -> None:
    """The grid is small, its cells differ, and all stand at the L0 that are compared."""
    trained = [c for c in study.cells.values() if c.kind == "trained"]
    assert 12 <= len(study.cells) <= 16
    assert {c.l0_target for c in trained} == set(study.compare.matched_l0)
    steps = study.train.epochs * (study.extract.n_tokens // study.train.batch_size)
    for cell in trained:
        assert cell.l0_target is not None and cell.l0_target <= cell.width(d_model)
        if cell.resamples:
            assert cell.resample_every <= cell.resample_until * steps
        if cell.penalty != "none":
            assert cell.target_l0 is not None, "no λ of another model decides the sparsity"
        if cell.revival == "auxk":
            assert cell.dead_tokens < study.train.epochs * study.extract.n_tokens
    assert {c.baseline for c in study.cells.values()} >= {"neurons", "pca", "untrained"}


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    d_model=st.integers(4, 8192),
    tokens=st.integers(14_500, 10**10),
    documents=st.integers(50, 10**7),
    longest=st.integers(1, 10**5),
    n_layers=st.integers(1, 80),
)
def test_every_size_of_text_and_model_has_a_valid_grid(
    d_model: int, tokens: int, documents: int, longest: int, n_layers: int
) -> None:
    shares = {"train": 0.7, "validation": 0.2, "calibration": 0.1}
    size = TextSize(
        name="a",
        documents={split: int(share * documents) for split, share in shares.items()},
        tokens={split: int(share * tokens) for split, share in shares.items()},
        longest=longest,
        characters=4 * tokens,
        shares={"validation": 0.2, "calibration": 0.1},
    )
    assert set(MIN_TOKENS) == set(shares)
    fit = Fit(d_model=d_model, n_layers=n_layers, positions=1024, tokens=size.tokens,
              documents=size.documents, longest=longest)  # fmt: skip
    subject = {"kind": "hub", "name": "a/b", "revision": "0" * 40, "d_model": d_model,
               "n_layers": n_layers}  # fmt: skip
    source = {"kind": "files", "files": {"a: b.csv": "0" * 64}, "columns": ["a, b"]}
    raw = YAML(typ="safe").load(study_yaml("x", fit, source, subject, size))
    study = parse(raw)
    assert list(raw["corpus"]["source"]["files"]) == ["a: b.csv"]
    assert raw["corpus"]["source"]["columns"] == ["a, b"]
    fits(study, d_model)
    assert study.extract.n_tokens <= max(size.tokens["train"], 1)
    assert fit.steps >= 50


CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "max_position_embeddings": 64,
}


def test_models_of_the_hub_are_pinned_to_their_newest_commit(
    checkout: Path, text: Path, hub: Any
) -> None:
    hub.shas = {"/api/models/someone/model": "c" * 40}
    hub.files = {f"/someone/model/resolve/{'c' * 40}/config.json": json.dumps(CONFIG)}
    message = invoke("new", "x", "--text", str(text), "--column", "body", "--model",
                     "someone/model")  # fmt: skip
    assert "the model's tokenizer can't be read now" in message
    study = load(checkout / "studies/x/params.yaml")
    source = study.subject.source
    assert source.kind == "hub"
    assert (source.revision, source.d_model, source.n_layers) == ("c" * 40, 32, 6)
    assert study.extract.hooks == ("blocks.3.hook_resid_post",)
    assert study.extract.context <= 64
    fits(study, d_model=32)


def test_short_names_are_all_that_a_study_of_the_hub_needs(
    checkout: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set has fewer documents than a new study reads at most: all of them are read."""
    text = "some words of a text that is long enough to be split " * 4
    rows = datasets.Dataset.from_dict({"text": [f"{n} {text}" for n in range(400)] + [""]})
    hub.shas = {
        "/api/models/openai-community/gpt2": "c" * 40,
        "/api/datasets/stas/openwebtext-10k": "e" * 40,
    }
    hub.files = {f"/openai-community/gpt2/resolve/{'c' * 40}/config.json": json.dumps(CONFIG)}
    monkeypatch.setattr("sae_repro.corpus.sources.reachable", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: rows)
    invoke("new", "gpt2", "--model", "gpt2", "--data", "openwebtext-10k")
    study = load(checkout / "studies/gpt2/params.yaml")
    model, texts = study.subject.source, study.corpus.source
    assert model.kind == "hub" and texts.kind == "hub"
    assert (model.name, model.revision) == ("openai-community/gpt2", "c" * 40)
    assert (texts.name, texts.revision) == ("stas/openwebtext-10k", "e" * 40)
    assert texts.n_documents == 400
    assert study.extract.prepend_bos is True, "the model is not here to be measured"
    fits(study, d_model=32)


def test_a_data_set_without_its_owner_is_refused(checkout: Path) -> None:
    message = refused("new", "x", "--data", "openwebtxt-10k", "--model", "gpt2")
    assert "a data set of the hub is owner/name, or one of ag_news, openwebtext-10k" in message
    assert message.endswith("did you mean openwebtext-10k?")


def test_branches_of_the_hub_are_pinned_to_their_commit(
    checkout: Path, text: Path, hub: Any
) -> None:
    hub.shas = {"/api/models/someone/model/revision/dev": "d" * 40}
    invoke("new", "x", "--text", str(text), "--column", "body", "--model", "someone/model",
           "--revision", "dev", "--d-model", "32", "--n-layers", "6")  # fmt: skip
    source = load(checkout / "studies/x/params.yaml").subject.source
    assert source.kind == "hub" and source.revision == "d" * 40


def test_data_sets_of_the_hub_are_pinned(
    checkout: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(source: Any) -> None:
        assert source.revision == "e" * 40
        raise unreachable(source.name, "no rows today")

    hub.shas = {"/api/datasets/someone/texts": "e" * 40}
    monkeypatch.setattr("sae_repro.corpus.sources.open_hub", no_answer)
    message = invoke("new", "x", "--dataset", "someone/texts", "--column", "story")
    assert "someone/texts can't be read now: sizes are those of 20,000 documents" in message
    source = load(checkout / "studies/x/params.yaml").corpus.source
    assert source.kind == "hub"
    assert (source.revision, source.n_documents, source.columns) == ("e" * 40, 20_000, ("story",))


def test_a_data_set_without_the_column_is_refused(
    checkout: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a hub that gives no answer leaves the sizes to be guessed."""
    rows = datasets.Dataset.from_dict({"text": ["some words of text"] * 3})
    hub.shas = {"/api/datasets/someone/texts": "e" * 40}
    monkeypatch.setattr("sae_repro.corpus.sources.reachable", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: rows)
    message = refused("new", "x", "--dataset", "someone/texts", "--column", "story")
    assert "columns = story: someone/texts has no such column; it has text" in message
    assert studies(checkout) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "someone/model"], "commit (40 hex digits): --revision, --d-model"),
        (["--dataset", "someone/texts"], "commit (40 hex digits): --dataset-revision"),
    ],
)
def test_without_the_hub_the_commit_is_asked_for(
    checkout: Path, text: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "--model" in arguments:
        arguments = [*arguments, "--text", str(text), "--column", "body"]
    message = refused("new", "x", *arguments)
    assert "can't be reached (HF_HUB_OFFLINE is set)" in message
    assert says in message and "\n" not in message
    assert studies(checkout) == []


def test_without_the_hub_a_named_commit_will_do(
    checkout: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    invoke("new", "x", "--text", str(text), "--column", "body", "--model", "someone/model",
           "--revision", "b" * 40, "--d-model", "64", "--n-layers", "6")  # fmt: skip
    study = load(checkout / "studies/x/params.yaml")
    assert study.subject.source.kind == "hub"
    assert study.extract.hooks == ("blocks.3.hook_resid_post",)


def test_activations_get_a_grid_that_fits_them_and_no_language_model(
    checkout: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(5, 2)).astype(np.float32)
    torch.save(torch.from_numpy(rng.random((2000, 5), dtype=np.float32) @ atoms), tmp_path / "x.pt")
    message = invoke("new", "toy", "--activations", str(tmp_path / "x.pt"))
    assert "2,000 rows, D = 2" in message
    study = load(checkout / "studies/toy/params.yaml")
    check_inputs(study, checkout / "studies/toy")
    assert study.subject.source.kind == "none"
    assert study.extract.hooks == ("activations",)
    assert {cell.k for cell in study.cells.values() if cell.k} == {2, 4, 8}
    assert {"neurons", "pca", "untrained"} <= {cell.baseline for cell in study.cells.values()}
    assert (checkout / "studies/toy/inputs/x.pt").is_file()
    both = refused("new", "two", "--activations", str(tmp_path / "x.pt"), "--model", "gpt2")
    assert "name files only" in both
    torch.save(torch.zeros(9, 2), tmp_path / "few.pt")
    few = refused("new", "few", "--activations", str(tmp_path / "few.pt"))
    assert "9 rows; give 256 or more" in few
    assert not (checkout / "studies/few").exists()


@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [300, 1500])
def test_few_rows_of_few_dimensions_get_cells_that_are_sparse(
    rows: int, width: int, checkout: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(rows, width)))
    invoke("new", "toy", "--activations", str(tmp_path / "x.npy"))
    study = load(checkout / "studies/toy/params.yaml")
    found = {cell.k for cell in study.cells.values() if cell.k}
    assert len(found) == 3
    assert max(found) < min(cell.expansion for cell in study.cells.values() if cell.k) * width


def test_copies_are_no_further_documents(checkout: Path, tmp_path: Path) -> None:
    words = [" ".join(f"w{n}" for n in range(start, start + 60)) for start in range(5)]
    (tmp_path / "copies.txt").write_text("\n\n".join(words * 100))
    message = refused("new", "x", "--text", str(tmp_path / "copies.txt"))
    assert "500 documents" in message and "495 of them copies of others" in message
    assert "in 20 different documents to train on" in message
    assert message.endswith("give more documents that differ")


@pytest.mark.parametrize("option", ["--documents", "--d-model", "--n-layers"])
def test_none_at_all_is_not_all(option: str, checkout: Path, text: Path) -> None:
    result = CliRunner().invoke(
        app, ["new", "x", "--text", str(text), "--column", "body", option, "0"]
    )
    assert result.exit_code == 2 and studies(checkout) == []


def test_a_column_stands_for_one_thing(checkout: Path, text: Path) -> None:
    twice = refused("new", "x", "--text", str(text), "--column", "body", "--column", "body")
    assert "corpus.source.columns: names body twice" in twice
    label = refused("new", "x", "--text", str(text), "--column", "body", "--label", "body")
    assert "corpus.source.label = body: is a text column" in label
    assert studies(checkout) == []


@pytest.mark.parametrize("option", ["--text", "--activations"])
def test_a_folder_is_no_file_but_there(option: str, checkout: Path, tmp_path: Path) -> None:
    assert refused("new", "x", option, str(tmp_path)) == (
        f"{option} {tmp_path}: is a folder; name its files"
    )


def test_the_next_command_is_one_that_a_shell_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *_, last = invoke("init", "my stüdy; it's").strip().splitlines()
    change, _, rest = last.removeprefix("next: ").partition(" && ")
    assert rest.endswith("dvc repro")
    command = f"{change} && ls dvc.yaml"
    assert subprocess.check_output(command, shell=True, text=True) == "dvc.yaml\n"
