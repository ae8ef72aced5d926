"""The closing lines of a comparison: no stronger than the tables that they are read from."""

from pathlib import Path

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_repro.compare.closing import lowest_lines

PLACE = {"hook": "h", "expansion": 8.0, "target_l0": 16.0}
NAMES = ("topk", "gated", "vanilla")


def write(folder: Path, values: dict[str, float], verdicts: dict[tuple[str, str], str]) -> Path:
    """The two tables, of one hook, expansion and target."""
    folder.mkdir(exist_ok=True)
    rows = [
        {
            **PLACE,
            "architecture": name,
            "usual_length": True,
            "fvu": v,
            "fvu_low": v - 0.01,
            "fvu_high": v + 0.01,
        }
        for name, v in values.items()
    ]
    pairs = [{**PLACE, "a": a, "b": b, "a_is": says} for (a, b), says in verdicts.items()]
    pd.DataFrame(rows).to_csv(folder / "matched_l0.csv", index=False)
    pd.DataFrame(pairs).to_csv(folder / "matched_l0_pairs.csv", index=False)
    return folder


def test_the_lowest_is_named_with_its_interval_and_what_the_pairs_do_not_tell_from_it(
    tmp_path: Path,
) -> None:
    values = {"topk": 0.06, "gated": 0.05, "vanilla": 0.2}
    says = {
        ("topk", "gated"): "not distinguishable",
        ("topk", "vanilla"): "lower",
        ("gated", "vanilla"): "lower",
    }
    head, line = lowest_lines(write(tmp_path, values, says))
    assert "95 % intervals as in matched_l0.md" in head
    assert line == "  h, 8×, L0 16: gated 0.0500 [0.0400, 0.0600]; not distinguishable: topk"


def test_a_pair_that_was_not_compared_is_not_distinguishable(tmp_path: Path) -> None:
    _, line = lowest_lines(write(tmp_path, {"topk": 0.06, "gated": 0.05}, {}))
    assert line.endswith("; not distinguishable: topk")


def test_of_one_seed_nothing_is_claimed(tmp_path: Path) -> None:
    values = {"topk": 0.06, "gated": 0.05, "vanilla": 0.2}
    says = {("topk", "gated"): "one seed", ("gated", "vanilla"): "lower"}
    _, line = lowest_lines(write(tmp_path, values, says))
    assert line.endswith("gated 0.0500 [0.0400, 0.0600]; one seed, nothing claimed of: topk")


def test_an_architecture_outside_its_range_is_no_competitor(tmp_path: Path) -> None:
    _, line = lowest_lines(write(tmp_path, {"topk": 0.06, "gated": float("nan")}, {}))
    assert line.endswith("topk 0.0600 [0.0500, 0.0700]; no other architecture has a value here")


def test_without_a_value_anywhere_it_says_so(tmp_path: Path) -> None:
    says = ["compare: no architecture has a value at a target of compare.matched_l0"]
    assert list(lowest_lines(tmp_path)) == says, "no table was written"
    assert list(lowest_lines(write(tmp_path / "t", {"topk": float("nan")}, {}))) == says


@given(
    values=st.permutations([0.1, 0.2, 0.3]),
    verdicts=st.lists(st.sampled_from(["lower", "higher", "not distinguishable"]), min_size=3,
                      max_size=3),
    flip=st.lists(st.booleans(), min_size=3, max_size=3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_line_says_more_than_the_pairs(
    tmp_path_factory: object, values: list[float], verdicts: list[str], flip: list[bool]
) -> None:
    """Whichever of a pair stands first, and whatever its row says."""
    folder: Path = tmp_path_factory.mktemp("tables")  # type: ignore[attr-defined]
    value = dict(zip(NAMES, values, strict=True))
    ordered = [("topk", "gated"), ("topk", "vanilla"), ("gated", "vanilla")]
    says = {
        ((b, a) if turned else (a, b)): verdict
        for (a, b), verdict, turned in zip(ordered, verdicts, flip, strict=True)
    }
    _, line = lowest_lines(write(folder, value, says))
    best = min(value, key=value.__getitem__)
    told = {
        other
        for other in NAMES
        if says.get((best, other)) == "lower" or says.get((other, best)) == "higher"
    }
    assert f": {best} " in line
    named = line.partition("not distinguishable: ")[2].split(", ") if "not dist" in line else []
    assert set(named) == set(NAMES) - {best} - told
