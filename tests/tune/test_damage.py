"""Damage to the files of a search: its journal, tables and best trials; healed or named."""

import hashlib
import random
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from sae_repro.errors import StudyError
from sae_repro.params import Tune
from sae_repro.provenance import check_recorded
from sae_repro.tune import JOURNAL
from sae_repro.tune.figures import write_figures
from sae_repro.tune.recorded import Recorded
from sae_repro.tune.results import trials

from ..damage import ALL, damage
from .conftest import SPACE, TinyStudy

MUTANTS = 30


def test_a_damaged_journal_is_healed_or_named(study: TinyStudy) -> None:
    """Each kind of damage, and flips and digits all over it; never another table of trials."""
    study.space(trials=4)
    before = study.tune()
    journal = study.folder / JOURNAL
    whole = journal.read_bytes()
    rng, named = random.Random(3), 0
    for number in range(len(ALL) + MUTANTS):
        if number < len(ALL):
            assert damage(journal, ALL[number])
        else:
            content = bytearray(whole)
            digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
            if number % 2:
                place = rng.choice(digits)
                content[place] = ord("0") + (content[place] - ord("0") + 1) % 10
            else:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            journal.write_bytes(content)
        try:
            assert study.tune() == before, number
        except StudyError as error:
            first = str(error).splitlines()[0]
            assert str(JOURNAL) in first and "move the file away" in str(error).lower(), number
            named += 1
        journal.write_bytes(whole)
    assert named > MUTANTS / 4
    assert study.tune() == before


def test_a_trial_without_its_hash_is_of_an_earlier_version_only_before_all_others(
    study: TinyStudy,
) -> None:
    study.space(trials=4)
    before = study.tune()
    journal = study.folder / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole.replace(b"sae_repro.sha256", b"sae_repro.other"))
    assert study.tune() == before
    parts = whole.rsplit(b"sae_repro.sha256", 1)
    journal.write_bytes(b"sae_repro.other".join(parts))
    with pytest.raises(StudyError, match="trial 3 is not as it was recorded"):
        study.tune()


def recorded(folder: Path) -> None:
    """A dvc.lock as DVC writes it of the files of a search."""
    outs = [
        {
            "path": f"tune/{name}",
            "md5": hashlib.md5((folder / "tune" / name).read_bytes()).hexdigest(),
        }
        for name in ("trials.csv", "best.yaml")
    ]
    params = {
        "tune/params.yaml": YAML(typ="safe").load(folder / "tune/params.yaml"),
        "params.yaml": {"recipes": {}},
    }
    with (folder / "tune/dvc.lock").open("w") as file:
        YAML().dump({"stages": {"tune": {"outs": outs, "params": params}}}, file)


def test_what_dvc_recorded_of_a_search_is_read_unchanged_or_named(study: TinyStudy) -> None:
    study.space(trials=4)
    study.tune()
    recorded(study.folder)
    assert len(trials(study.folder)) == len(Recorded.of(study.folder).trials()) == 4
    for name in ("trials.csv", "best.yaml", "dvc.lock"):
        path = study.folder / "tune" / name
        whole = path.read_bytes()
        for kind in ALL if name != "dvc.lock" else ("empty", "zeros"):
            assert damage(path, kind)
            with pytest.raises(StudyError) as error:
                Recorded.of(study.folder).trials()
            assert str(path) in str(error.value), (name, kind)
            path.write_bytes(whole)


@pytest.mark.parametrize("kind", ALL)
def test_a_damaged_table_of_the_grid_is_named(tmp_path: Path, kind: str) -> None:
    """Beside the trials; where nothing is recorded, what can be read is drawn."""
    from .test_figures import made_up

    table = tmp_path / "reports/tables/cells.csv"
    table.parent.mkdir(parents=True)
    pd.DataFrame({"status": ["ok"], "negative_control": "no", "hook": "h", "l0": 3.0, "fvu": 0.2}
                 ).to_csv(table, index=False)  # fmt: skip
    (table.parent / "a").mkdir()
    (table.parent / "a/b.md").write_text("b")
    entries = [
        f'{{"md5": "{hashlib.md5(path.read_bytes()).hexdigest()}", "relpath": "{name}"}}'
        for name, path in (("a/b.md", table.parent / "a/b.md"), ("cells.csv", table))
    ]
    md5 = hashlib.md5(f"[{', '.join(entries)}]".encode()).hexdigest()
    lock = {"stages": {"compare": {"outs": [{"path": "reports/tables", "md5": f"{md5}.dir"}]}}}
    with (tmp_path / "dvc.lock").open("w") as file:
        YAML().dump(lock, file)
    check_recorded(tmp_path, "compare", Path("reports/tables"))
    assert damage(table, kind)
    with pytest.raises(StudyError, match=r"reports/tables: changed .*--single-item compare` makes"):
        check_recorded(tmp_path, "compare", Path("reports/tables"))
    tune = Tune.model_validate({**SPACE, "batch": 12})
    (tmp_path / "figures").mkdir()
    if kind in ("empty", "zeros"):
        with pytest.raises(
            StudyError, match=r"cells\.csv: can't be read .*compare` makes it again"
        ):
            write_figures(tmp_path / "figures", tune, *made_up(tune), grid=table)
