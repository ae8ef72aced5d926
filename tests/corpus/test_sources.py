"""Text sources that are damaged, changed or cut off: each is read whole, or a clear error."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import datasets
import pandas as pd
import pytest
from huggingface_hub.errors import HTTPError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sae_repro.corpus.sources import SOURCES, open_files, open_hub
from sae_repro.errors import StudyError, one_line
from sae_repro.files import sha256_file
from sae_repro.params import Corpus, FilesSource, HubSource

KINDS = {
    kind
    for section in get_args(Corpus.model_fields["source"].annotation)
    for kind in get_args(section.model_fields["kind"].annotation)
}
ROWS = [{"text": f"story number {n}", "n": n} for n in range(30)]


def files(path: Path, **options: Any) -> FilesSource:
    return FilesSource.model_validate(
        {"kind": "files", "files": {path.name: sha256_file(path)}, **options}
    )


def texts(path: Path, **options: Any) -> list[str]:
    return [document.text for document in open_files(files(path, **options), path.parent)]


def save_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_changed_content_is_read_anew_even_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for word in ("first", "other"):
        save_jsonl(path, [{"text": f"{word} text"}])
        os.utime(path, (10**9, 10**9))
        assert texts(path) == [f"{word} text"]


def test_a_change_between_two_passes_is_noticed(tmp_path: Path) -> None:
    """The tokenizer's pass and the tokens' are of one content."""
    path = save_jsonl(tmp_path / "a.jsonl", ROWS)
    source = open_files(files(path), tmp_path)
    assert len(list(source)) == len(ROWS)
    path.write_text(path.read_text().replace("story", "glory"))
    with pytest.raises(StudyError, match=r"a\.jsonl has changed"):
        list(source)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": "kind"}, "source.label = kind: a.jsonl has no such column; it has text, n"),
        ({"label": "kind", "n_documents": 5}, "label = kind: none of the 5 documents of a.jsonl"),
        ({"columns": ["text", "body"]}, "source.columns = body: a.jsonl has no such column"),
        ({"n_documents": 31}, "has only 30 documents with text; 1 row without text left out; ask"),
    ],
)
def test_what_no_row_has_is_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = save_jsonl(tmp_path / "a.jsonl", [*ROWS[:20], {"text": None, "n": 0}, *ROWS[20:]])
    with pytest.raises(StudyError) as caught:
        texts(path, **options)
    assert says in str(caught.value)


def test_files_may_differ_in_columns_that_are_not_asked_for(tmp_path: Path) -> None:
    for number, header in enumerate(("text,b", "c,text,d")):
        row = ",".join("the text" if name == "text" else "1" for name in header.split(","))
        (tmp_path / f"{number}.csv").write_text(f"{header}\n{row}\n")
    pins = {f"{number}.csv": sha256_file(tmp_path / f"{number}.csv") for number in (0, 1)}
    source = FilesSource(kind="files", files=pins)
    assert [d.text for d in open_files(source, tmp_path)] == ["the text", "the text"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_column_that_is_not_asked_for_may_change_its_kind_late(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    rows = [{"text": f"text {n}", "note": "" if n < 10_020 else ["seen"]} for n in range(10_050)]
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        save_jsonl(path, [row if n % 2 else {"text": row["text"]} for n, row in enumerate(rows)])
    assert texts(path) == [row["text"] for row in rows]


NAMES = st.text(
    st.sampled_from("ab1 []{}()*?!$%&#@~^=+,;:'\"`<>|\\.-_éß→")
    | st.characters(exclude_categories=["Cs"], exclude_characters="/\0"),
    min_size=1, max_size=12,
).filter(lambda name: len(name.encode()) < 200 and one_line(name) == name)  # fmt: skip


@given(folder=NAMES, stem=NAMES, suffix=st.sampled_from([".jsonl", ".csv", ".txt", ".parquet"]))
@example(folder="f", stem="news[1]", suffix=".jsonl")
@example(folder="a::b", stem="c::d", suffix=".csv")
@example(folder="${root}", stem="$HOME", suffix=".parquet")
@example(folder="*", stem="**", suffix=".txt")
@example(folder="s3:", stem="hf:", suffix=".parquet")
@settings(max_examples=80, deadline=None)
def test_a_name_is_no_pattern(
    folder: str, stem: str, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Siblings that the name would match as a pattern, or unescaped, are not read."""
    if folder in (".", ".."):
        return
    study = tmp_path_factory.mktemp("study")
    name = f"{folder}/{stem}{suffix}"
    found = {}
    siblings = {stem, stem.replace("[", "").replace("]", ""), "x", stem.replace("?", "a"),
                stem.replace("*", "ab"), stem.replace("\\", ""), stem.strip()} - {""}  # fmt: skip
    for number, sibling in enumerate(sorted(siblings)):
        path = study / folder / f"{sibling}{suffix}"
        path.parent.mkdir(exist_ok=True)
        found[sibling] = f"text {number}"
        frame = pd.DataFrame({"text": [found[sibling]]})
        match suffix:
            case ".jsonl":
                save_jsonl(path, [{"text": found[sibling]}])
            case ".csv":
                frame.to_csv(path, index=False)
            case ".txt":
                path.write_text(found[sibling])
            case _:
                with path.open("wb") as file:
                    frame.to_parquet(file)
    source = FilesSource(kind="files", files={name: sha256_file(study / name)})
    assert [document.text for document in open_files(source, study)] == [found[stem]]


def test_no_cache_and_no_home_are_needed(tmp_path: Path) -> None:
    """Every call that could make a file fails, and the text is read."""
    save_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.csv").write_text("text\none\n")
    pd.DataFrame(ROWS).to_parquet(tmp_path / "a.parquet")
    script = """
import builtins, os, sys
from pathlib import Path
from sae_repro.corpus.sources import open_files
from sae_repro.files import sha256_file
from sae_repro.params import FilesSource

def hook(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
        raise PermissionError(args[0])
    if event in ("os.mkdir", "os.rename", "os.remove", "tempfile.mkstemp"):
        raise PermissionError(event)

sys.addaudithook(hook)
for name in ("a.jsonl", "a.csv", "a.parquet"):
    source = FilesSource(kind="files", files={name: sha256_file(Path(name))})
    print(len(list(open_files(source, Path()))))
assert "datasets" not in sys.modules
"""
    environment = {
        **os.environ, "HOME": "/nonexistent", "HF_HOME": "/nonexistent/hf", "TMPDIR": "/nonexistent"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["30", "1", "30"], done.stderr


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_separate_whatever_ends_a_line(end: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(["", "one", " ", "", "two", "lines", "", "three"]).encode())
    assert texts(path) == ["one", f"two{end}lines", "three"]


def test_csv_cells_that_spell_a_missing_value_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nNone,1\nNA,\nnull,2\n,3\n")
    source = open_files(files(path, label="label"), tmp_path)
    found = [(document.text, document.label) for document in source]
    assert found == [("None", "1"), ("NA", None), ("null", "2")]
    assert source.skipped == {"empty": 1}


@pytest.mark.parametrize(("name", "content"), [("a.csv", "text\n"), ("a.jsonl", "\n")])
def test_a_file_without_documents_says_so(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(StudyError, match=rf"{name}: no documents in it"):
        texts(tmp_path / name)


def test_ragged_csv_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,b\none,1\ntwo,2,3,4\n")
    with pytest.raises(StudyError, match=r"a\.csv: .*line 3"):
        texts(path)


def test_a_column_of_lists_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"a\.jsonl: row 1 .*, column text: holds a list"):
        texts(save_jsonl(tmp_path / "a.jsonl", [{"text": ["a", "b"]}]))


def test_damaged_parquet_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StudyError, match=r"^corpus\.source\.files: a\.parquet: ") as caught:
        texts(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)


def test_local_files_open_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Any] = []
    monkeypatch.setattr("socket.socket.connect", lambda self, address: requests.append(address))
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_: requests.append(args))
    for suffix in ("jsonl", "parquet"):
        path = tmp_path / f"a.{suffix}"
        if suffix == "jsonl":
            save_jsonl(path, ROWS)
        else:
            pd.DataFrame(ROWS).to_parquet(path)
        assert len(texts(path)) == len(ROWS)
    assert requests == []


# The hub, played by a local folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `load_dataset` reads in place of the data set someone/texts."""
    folder, load_dataset = tmp_path / "hub", datasets.load_dataset

    def from_folder(path: str, /, **options: Any) -> Any:
        if path != "someone/texts":
            return load_dataset(path, **options)
        return load_dataset(str(folder), **{**options, "revision": None})

    folder.mkdir()
    save_jsonl(folder / "train.jsonl", ROWS)
    monkeypatch.setattr("sae_repro.corpus.sources.reachable", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    return folder


def from_hub(**options: Any) -> list[str]:
    source = HubSource.model_validate(
        {"kind": "hub", "name": "someone/texts", "revision": "a" * 40, **options}
    )
    return [document.text for document in open_hub(source)]


def some_files(folder: Path) -> FilesSource:
    return files(save_jsonl(folder / "a.jsonl", ROWS))


def some_hub(folder: Path) -> HubSource:
    return HubSource(kind="hub", name="someone/texts", revision="a" * 40)


EXAMPLES = {"files": some_files, "hub": some_hub}
"""By kind: a source of the texts of `ROWS`."""


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("kind", sorted({*KINDS, *SOURCES} - {"stories", "activations"}))
def test_every_kind_gives_its_documents_in_order_and_again(kind: str, tmp_path: Path) -> None:
    assert kind in KINDS, "params/corpus.py: Corpus.source"
    assert kind in SOURCES, "corpus/sources.py: SOURCES"
    assert kind in str(Corpus.model_fields["source"].description), "params/corpus.py"
    assert kind in EXAMPLES, "give it an example here"
    source = SOURCES[kind](EXAMPLES[kind](tmp_path), tmp_path)
    for _ in range(2):  # once for the tokenizer, once for the tokens
        assert [document.text for document in source] == [row["text"] for row in ROWS]
    assert not source.skipped


streamed = pytest.mark.parametrize("streaming", [False, True])


@streamed
def test_a_stream_gives_what_a_download_gives(hub: Path, streaming: bool) -> None:
    assert from_hub(streaming=streaming) == [row["text"] for row in ROWS]
    assert len(from_hub(streaming=streaming, n_documents=7)) == 7


@streamed
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["body"]}, "columns = body: someone/texts has no such column; it has text, n"),
        ({"label": "kind"}, "label = kind: someone/texts has no such column; it has text, n"),
        ({"split": "test"}, "someone/texts at a{40}: .*test"),
        ({"config": "nope"}, "someone/texts at a{40}: .*nope"),
        ({"n_documents": 31}, "n_documents = 31: someone/texts has only 30 documents"),
    ],
)
def test_a_data_set_missing_on_the_hub_is_a_clear_error(
    hub: Path, streaming: bool, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        from_hub(streaming=streaming, **options)


@streamed
def test_a_damaged_data_set_is_a_clear_error(hub: Path, streaming: bool) -> None:
    with (hub / "train.jsonl").open("a") as file:
        file.write('{"text": \n')
    with pytest.raises(StudyError, match=r"someone/texts .*JSON parse error"):
        from_hub(streaming=streaming)


@pytest.mark.parametrize("error", [ConnectionError("gone"), HTTPError("gone")])
def test_a_broken_connection_names_the_last_row(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Breaking:
        column_names, features = ("text", "n"), None

        def select_columns(self, columns: list[str]) -> "Breaking":
            return self

        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield from ROWS
            raise error

    monkeypatch.setattr("sae_repro.corpus.sources.reachable", lambda what: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: Breaking())
    with pytest.raises(StudyError, match=r"beyond row 30 \(gone\).*run again"):
        from_hub(streaming=True)
