"""Tables are read exactly: text and labels as written, other columns never looked at."""

import csv
import io
import json
import string
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.errors import Named, StudyError
from sae_repro.tables import FORMATS, jsonl
from sae_repro.tables.cells import Column

NAMED = Named("corpus.source.files", "a")
quick = settings(max_examples=60, deadline=None)

# what a text file can hold: no lone surrogates, and no NUL, which csv refuses
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
odd_texts = st.sampled_from(
    ["", " ", "NA", "null", "None", "1", "01", "1.0", "001", "1e3", "-0", "true", "2024-01-31",
     "a,b", 'he said "x"', '"', "\n", "a\nb", "a\r\nb", "a\rb", "\r", "\ufeffa", "é", "∑", "🙂",
     "'", "\\", "\t"]
)  # fmt: skip
cells = texts | odd_texts


def column(name: str, kind: Any = "text") -> Column:
    return Column(name, kind, f"corpus.source.columns = {name}")


def read(content: bytes, suffix: str, *columns: Column) -> list[tuple[Any, ...]]:
    return list(FORMATS[suffix](io.BytesIO(content), NAMED, columns or [column("text")]))


def refused(content: bytes | str, suffix: str, *columns: Column) -> str:
    if isinstance(content, str):
        content = content.encode()
    with pytest.raises(StudyError) as caught:
        read(content, suffix, *columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def lines_of(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


# csv


@quick
@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
)
def test_csv_gives_what_was_written(
    rows: list[tuple[str, str, str]], quoting: Any, end: str, mark: bool
) -> None:
    if quoting == csv.QUOTE_MINIMAL:
        end = "\r\n"  # with another end, Python 3.11 leaves the other half of it unquoted
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting, lineterminator=end)
    writer.writerow(["text", "other", "label"])
    writer.writerows(rows)
    content = out.getvalue().encode("utf-8-sig" if mark else "utf-8")
    found = read(content, ".csv", column("label", "label"), column("text"))
    assert found == [(label or None, text) for text, _, label in rows]


def test_a_long_field_leaves_the_limit_of_the_process_as_it_was() -> None:
    before = csv.field_size_limit()
    long = "x" * (before + 1)
    rows = FORMATS[".csv"](io.BytesIO(f"text\n{long}\nb\n".encode()), NAMED, [column("text")])
    assert next(iter(rows)) == (long,)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text,b\none,1\ntwo,\nthree,3,\n", r"row 3 (line 4) has 3 fields and the header 2"),
        ("text,b\none,1,\n", "it ends in a comma"),
        ("text,b\none,1\n\n\ntwo\n", "row 2 (line 5) has 1 fields"),
        ('text,b\n"a\nb",1\n"c,2\nd,3\n', "row 2 (line 4): a quote is opened and never closed"),
        ('text,b\n"a "b" c",1\n', "row 1 (line 2): text follows a closing quote"),
        ('"text,b\n', "the header (line 1): a quote is opened"),
        ("text,text\na,b\n", "corpus.source.columns = text: a has 2 columns of this name"),
        ("text;label\na;b\n", "it has text;label (one column: semicolons don't separate"),
        ("a\tb\nc\td\n", r"it has a\tb (one column: tabs don't separate"),
        ("hello,world\nb,c\n", "it has hello, world (a csv starts with a line that names"),
        ("text,b\none,1\nt\0wo,2\n", "line 3 has a NUL byte"),
        (b"text\nok\ncaf\xe9\n", "is not UTF-8 (line 3, byte 4 of it); convert it, e.g. iconv"),
        ("text\na\n".encode("utf-16"), "iconv -f utf-16"),
    ],
)
def test_faulty_csv_is_refused_with_its_place(content: str | bytes, says: str) -> None:
    assert says in refused(content, ".csv")


def test_blank_lines_of_a_csv_are_no_rows() -> None:
    assert read(b"\n\r\ntext,b\n\na,1\n  \nb,2\n\n", ".csv") == [("a",), ("b",)]
    assert read(b"text\n", ".csv") == read(b"", ".csv") == []


# json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
                        fullmatch=True, alphabet=string.printable)  # fmt: skip


@quick
@given(
    rows=st.lists(st.tuples(cells, values, st.integers(0, 2)), min_size=1, max_size=5),
    array=st.booleans(),
    indent=st.sampled_from([None, 1]),
    ascii_=st.booleans(),
    chunk=st.sampled_from([1, 7, 1 << 20]),
)
def test_json_gives_what_was_written_whatever_other_keys_hold(
    rows: list[tuple[str, Any, int]], array: bool, indent: int | None, ascii_: bool, chunk: int
) -> None:
    """As lines, or as one array that arrives in pieces of any size."""
    objects = [
        {"text": text, **({"other": other} if place else {}), **({"more": other} if place > 1 else
                                                                {})}
        for text, other, place in rows
    ]  # fmt: skip
    if array:
        content = json.dumps(objects, indent=indent, ensure_ascii=ascii_)
    else:
        content = "\n".join(json.dumps(row, ensure_ascii=ascii_) for row in objects)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "CHUNK", chunk)
        assert read(content.encode(), ".json") == [(text,) for text, _, _ in rows]


@quick
@given(st.lists(numbers, min_size=1, max_size=5))
def test_numbers_as_labels_are_the_characters_written(written: list[str]) -> None:
    content = "".join(f'{{"text": "a", "label": {number}}}\n' for number in written)
    found = read(content.encode(), ".jsonl", column("label", "label"))
    assert found == [(number,) for number in written]


def test_labels_of_json_are_as_written_and_null_is_none() -> None:
    written = ["1", "1.0", "1e0", "true", "false", "null", "NaN", '"1"', '""', '"null"']
    content = "".join(f'{{"label": {label}}}\n' for label in written) + "{}\n"
    found = [label for (label,) in read(content.encode(), ".jsonl", column("label", "label"))]
    assert found == ["1", "1.0", "1e0", "true", "false", None, None, "1", "", "null", None]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "a"}\n\n{"text": 5}\n', "row 2 (line 3), column text: holds the number 5, not"),
        ('{"text": true}', "holds true, not text"),
        ('{"text": ["a"]}', "holds a list, not text"),
        ('{"text": {"a": 1}}', "holds an object, not text"),
        ('[{"text": "a"}, {"text": []}]', "row 2, column text: holds a list"),
        ('{"text": "a", "text": "b"}', "row 1 (line 1) has the key text 2 times"),
        ('{"body": "a"}\n{"title": "b"}\n', "text: a has no such column; it has body, title"),
        ('{"text": "a"}\n"b"\n', 'row 2 (line 2) is the text "b"; each row must be an object'),
        ('{"text": "a"}\n5\n', "row 2 (line 2) is the number 5"),
        ("[1, 2]", "row 1 is the number 1; each row must be an object"),
        ('{"text": "a"}\n{"text": \n', "row 2 (line 2) is no JSON (Expecting value at character"),
        ('{\n "text": "a"\n}\n', "row 1 (line 1) is no JSON"),
        ('[{"text": "a"}, {"text": "b"', "row 2 is no JSON (Expecting ',' delimiter"),
        ('[{"text": "a"} {"text": "b"}]', "row 2 is no JSON (expected a comma or ]"),
        ('[{"text": "a"}] []', "row 2 is no JSON (text after the end of the array"),
        ('[{"text": "a"},]', "row 2 is no JSON"),
        ('{"text": "a", "x": ' + "[" * 100_000 + "\n", "row 1 (line 1) is nested too deeply"),
        ('[{"x": ' + '{"a":' * 100_000, "row 1 is nested too deeply"),
        ('{"text": "a\\ud800b"}', r"column text: \ud800 is half of a character"),
        (b'{"text": "caf\xe9"}\n', "is not UTF-8 (line 1, byte 14 of it)"),
        ("{'text': 'a'}\n", "row 1 (line 1) is no JSON"),
    ],
)
def test_faulty_json_is_refused_with_its_place(content: str | bytes, says: str) -> None:
    assert says in refused(content, ".json")


@pytest.mark.parametrize("label", ["[1]", '{"a": 1}', "[]"])
def test_a_label_is_one_value(label: str) -> None:
    content = f'{{"label": "x"}}\n{{"label": {label}}}\n'
    assert "row 2 (line 2), column label: holds a" in refused(
        content, ".jsonl", column("label", "label")
    )


def test_a_faulty_array_is_refused_without_reading_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the middle must not draw the rest of a large file into memory."""
    monkeypatch.setattr(jsonl, "CHUNK", 1000)
    reads = []

    class Counting(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            reads.append(size)
            return super().read1(size)

    file = Counting(b'[{"text": oops}, ' + b'{"text": "a"},' * 100_000 + b"{}]")
    with pytest.raises(StudyError, match="row 1 is no JSON"):
        list(FORMATS[".json"](file, NAMED, [column("text")]))
    assert len(reads) < 10


# parquet

STRINGS = {
    "string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large dictionary": pa.dictionary(pa.int8(), pa.large_string()),
}  # fmt: skip


@pytest.mark.parametrize("type_", STRINGS.values(), ids=STRINGS)
def test_every_kind_of_string_is_text_and_label(type_: pa.DataType) -> None:
    values = ["one", "NA", None, "01", "é" * 1000, ""]
    plain = pa.array(values, pa.string())
    content = parquet(text=plain.cast(type_), other=pa.array([[1]] * 6))
    asked = column("text"), column("text", "label")
    assert read(content, ".parquet", *asked) == [(value, value) for value in values]


@pytest.mark.parametrize(
    ("array", "labels"),
    [
        (pa.array([1, None, -3], pa.int8()), ["1", None, "-3"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([3, 4], pa.int64()).dictionary_encode(), ["3", "4"]),
        (pa.array([19_753], pa.date32()), ["2024-01-31"]),
        (pa.array([1.0, 0.1, None, float("nan"), float("inf")]), ["1", "0.1", None, None, "inf"]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array([None, None]), [None, None]),
    ],
    ids=str,
)
def test_labels_of_parquet_have_one_way_of_being_written(
    array: pa.Array, labels: list[Any]
) -> None:
    found = read(parquet(label=array), ".parquet", column("label", "label"))
    assert found == [(label,) for label in labels]


@pytest.mark.parametrize(
    ("array", "kind", "says"),
    [
        (pa.array([1]), "text", "a holds int64, not text"),
        (pa.array([b"a"]), "text", "a holds binary, not text"),
        (pa.array([["a"]]), "text", "holds list<element: string>, not text"),
        (pa.array([["a"]]), "label", "not labels"),
        (pa.array([{"x": "a"}]), "label", "not labels"),
        (pa.array([0], pa.timestamp("ms")), "label", "holds timestamp[ms], not labels"),
        (pa.array([1.0]), "whole", "holds double, not whole numbers"),
        (pa.array(["1"]), "whole", "holds string, not whole numbers"),
        (pa.array([True]), "whole", "holds bool, not whole numbers"),
        (pa.array([1, None]), "whole", "row 2, column c: holds nothing, not a whole number"),
    ],
    ids=str,
)
def test_parquet_columns_of_other_kinds_are_refused(array: pa.Array, kind: str, says: str) -> None:
    assert says in refused(parquet(c=array), ".parquet", column("c", kind))


def test_parquet_columns_are_found_by_their_whole_name() -> None:
    content = parquet(**{"a.b": pa.array(["x"]), "a": pa.array([{"b": "y", "c": 1}])})
    assert read(content, ".parquet", column("a.b")) == [("x",)]
    message = refused(content, ".parquet", column("b"))
    assert "corpus.source.columns = b: a has no such column; it has a.b, a" in message
    twice = pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    sink = io.BytesIO()
    pq.write_table(twice, sink)
    assert "a has 2 columns of this name" in refused(sink.getvalue(), ".parquet")


@quick
@given(cut=st.integers(1, 2000), flip=st.integers(0, 2000))
def test_damaged_parquet_is_one_line_or_read(cut: int, flip: int) -> None:
    whole = parquet(text=pa.array([f"text number {n}" for n in range(100)]))
    flipped = bytearray(whole)
    flipped[flip % len(whole)] ^= 0xFF
    for content in (whole[: len(whole) - cut % len(whole)], bytes(flipped)):
        try:
            read(content, ".parquet")
        except StudyError as error:
            assert "\n" not in str(error)


pieces = st.sampled_from(
    [b'"', b"'", b",", b";", b"\n", b"\r", b"{", b"}", b"[", b"]", b":", b'"text"', b"text", b"\0",
     b"\\", b"\\u", b"d800", b"NaN", b"-", b"1", b"e", b"null", b"\xff", b"\xef\xbb\xbf", b" "]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(content=st.lists(pieces | st.binary(max_size=3), max_size=30).map(b"".join))
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(content: bytes) -> None:
    for suffix in FORMATS:
        asked = [column("text")] if suffix == ".txt" else [column("text"), column("text", "label")]
        try:
            rows = read(content, suffix, *asked)
        except StudyError as error:
            assert str(error).isprintable()
        else:
            for row in rows:
                assert len(row) == len(asked)
                assert all(cell is None or cell.encode() is not None for cell in row)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_streams_through_memory(suffix: str, tmp_path: Path) -> None:
    """20 MB, read with less than 8 MB at a time."""
    rows, long = 2000, "many words " * 900
    path = tmp_path / f"a{suffix}"
    match suffix:
        case ".parquet":
            with pq.ParquetWriter(path, pa.schema({"text": pa.string()})) as writer:
                for _ in range(rows // 100):
                    writer.write_table(pa.table({"text": [long] * 100}))
        case ".json":
            path.write_text("[" + ", ".join([json.dumps({"text": long})] * rows) + "]")
        case ".jsonl":
            path.write_text((json.dumps({"text": long}) + "\n") * rows)
        case ".csv":
            path.write_text("text\n" + f"{long}\n" * rows)
        case _:
            path.write_text(f"{long}\n\n" * rows)
    with path.open("rb") as file:
        tracemalloc.start()
        try:
            assert sum(1 for _ in FORMATS[suffix](file, NAMED, [column("text")])) == rows
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8_000_000


# whole numbers, as in labels of one's own


@pytest.mark.parametrize("written", ["1.0", "", "x", "1e3", "--1", "٣", "9" * 30, "nan"])
def test_only_whole_numbers_are_whole(written: str) -> None:
    assert "not a whole number" in refused(f"n,b\n{written},1\n", ".csv", column("n", "whole"))


@pytest.mark.parametrize("written", ["1.0", "null", '"1"', "true", "1e3", "NaN", "9" * 5000])
def test_only_whole_numbers_of_json_are_whole(written: str) -> None:
    content = f'{{"n": {written}}}\n'
    assert "not a whole number" in refused(content, ".jsonl", column("n", "whole"))


def test_whole_numbers_are_numbers() -> None:
    assert read(b"n,b\n -7,x\n", ".csv", column("n", "whole")) == [(-7,)]
    assert read(b'{"n": 7}', ".jsonl", column("n", "whole")) == [(7,)]
    assert read(parquet(n=pa.array([7], pa.uint8())), ".parquet", column("n", "whole")) == [(7,)]


# against the library that read these files before

plain = st.text(
    st.characters(codec="utf-8", exclude_characters='\0\r\n"', exclude_categories=["Cc", "Zs"]),
    min_size=1, max_size=12,
).filter(lambda text: text.strip("\ufeff") == text)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.tuples(plain, plain), min_size=1, max_size=8))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_well_formed_tables_are_read_as_before(
    suffix: str, rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    words = [(f"t{text}", f"l{label}") for text, label in rows]  # nothing that types are guessed of
    path = folder / f"a{suffix}"
    if suffix == ".parquet":
        path.write_bytes(parquet(text=pa.array([text for text, _ in words]),
                                 label=pa.array([label for _, label in words])))  # fmt: skip
    elif suffix == ".jsonl":
        path.write_bytes(lines_of([{"text": text, "label": label} for text, label in words]))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *words])
    kind = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}[suffix]
    before = datasets.load_dataset(
        kind, data_files=[str(path)], split="train", cache_dir=str(folder / "cache")
    )
    found = read(path.read_bytes(), suffix, column("text"), column("label", "label"))
    assert found == [(row["text"], row["label"]) for row in before]
