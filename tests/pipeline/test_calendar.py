"""The same bits on another day, in another place, for another user, on fewer cores."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import Checkout

pytestmark = pytest.mark.slow

STAGES = (
    "corpus", "subject", "extract", "train", "evaluate", "judge", "control", "compare", "report",
    "track",
)  # fmt: skip
SMALLER = {
    "steps: 60, batch_size: 16": "steps: 3, batch_size: 8",
    "20_000": "1_000",
    "2_000": "500",
    "n_validation_tokens: 4_000": "n_validation_tokens: 1_000",
    "epochs: 3": "epochs: 1",
}
CELLS = """\
recipes: {}
cells:
  vanilla: {expansion: 4, penalty: l1, lambda: 1e-2, target_l0: 3}
  matryoshka: {expansion: 4, activation: batchtopk, k: 3, prefixes: random, seeds: [0, 1]}
"""
# the calls by which programs ask for the date, 500 days on; what a library measures is left alone
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#define LATER (500L * 86400)
int clock_gettime(clockid_t id, struct timespec *t) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(id, t);
  if (!failed && id == CLOCK_REALTIME) t->tv_sec += LATER;
  return failed;
}
time_t time(time_t *out) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (out) *out = t.tv_sec;
  return t.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  out->tv_sec = t.tv_sec;
  out->tv_usec = t.tv_nsec / 1000;
  return 0;
}
"""
SERVER = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
"""Answers nothing: what is sent is in artifacts/track, and a database costs a run's time again."""
RUN = """\
import os, runpy, sys
for name in sys.argv[1:]:
    os.environ["DVC_STAGE"] = name
    runpy.run_path(f"stages/{name}.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Circumstances:
    """What a run's numbers must not depend on."""

    folder: str
    umask: int = 0o022
    jobs: int = 2
    cores: str = ""
    environment: dict[str, str] = field(default_factory=dict)


HERE = Circumstances("here", environment={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "TZ": "UTC"})


@pytest.fixture(scope="module")
def made(
    fresh: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Circumstances], dict[str, bytes]]:
    """Makes a small study under some circumstances: its results, and the keys of its store."""

    def make(under: Circumstances) -> dict[str, bytes]:
        study = fresh.copy(tmp_path_factory.mktemp("calendar") / under.folder)
        for old, new in SMALLER.items():
            study.change(old, new)
        path = study.folder / "params.yaml"
        path.write_text(path.read_text().partition("recipes:")[0] + CELLS)
        command = [sys.executable, "-c", RUN, *STAGES]
        if under.cores:
            command = ["taskset", "-c", under.cores, *command]
        done = subprocess.run(
            command, cwd=study.folder, capture_output=True, umask=under.umask,
            env=study.environment(SAE_REPRO_JOBS=str(under.jobs), **SERVER, **under.environment),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return _results(study.folder)

    return make


def _results(folder: Path) -> dict[str, bytes]:
    """Files in artifacts/ and reports/, and the names of the store's entries, which are keys."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for place in ("artifacts", "reports")
        for path in sorted((folder / place).rglob("*"))
        if path.is_file()
    }
    keys = {f"key {path.name}": b"" for path in sorted((folder / ".sae-repro/cells").iterdir())}
    assert len(files) > 50 and len(keys) >= 3
    return files | keys


@pytest.fixture(scope="module")
def here(made: Callable[[Circumstances], dict[str, bytes]]) -> dict[str, bytes]:
    return made(HERE)


def _assert_same(here: dict[str, bytes], there: dict[str, bytes], what: str) -> None:
    assert list(here) == list(there), what
    differing = [name for name in here if here[name] != there[name]]
    assert not differing, f"{len(differing)} files depend on {what}: {', '.join(differing[:5])}"


def test_nothing_depends_on_date_zone_hash_seed_folder_or_cores(
    made: Callable[[Circumstances], dict[str, bytes]], here: dict[str, bytes], tmp_path: Path
) -> None:
    compiler = shutil.which("cc")
    environment = {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Kiritimati"}
    if compiler is not None:  # else the date stays today's
        (tmp_path / "clock.c").write_text(CLOCK)
        clock = tmp_path / "clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", str(clock), str(tmp_path / "clock.c"), "-ldl"],
            check=True,
        )
        environment["LD_PRELOAD"] = str(clock)
        said = subprocess.run(
            [sys.executable, "-c", "import datetime; print(datetime.date.today().year)"],
            env=os.environ | environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert int(said.stdout) > _year()
    cores = "0" if shutil.which("taskset") else ""
    there = made(Circumstances("später, für ü", jobs=1, cores=cores, environment=environment))
    _assert_same(here, there, "date, time zone, hash seed, folder, workers or cores")


def _year() -> int:
    import datetime

    return datetime.date.today().year


def test_nothing_depends_on_locale_user_or_umask(
    made: Callable[[Circumstances], dict[str, bytes]], here: dict[str, bytes], tmp_path: Path
) -> None:
    environment = {
        "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
        "HOME": str(tmp_path), "USER": "müller", "LOGNAME": "müller", "USERNAME": "müller",
    }  # fmt: skip
    there = made(Circumstances("another room", umask=0o077, environment=environment))
    _assert_same(here, there, "locale, user or umask")
