"""optuna-dashboard on this machine only, open on a study's trials."""

import signal
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sae_repro.errors import StudyError
from sae_repro.track.ui import HOST, announce
from sae_repro.tune import JOURNAL
from sae_repro.tune.optuna_journal import REBUILT
from sae_repro.tune.proposals import quiet
from sae_repro.tune.recorded import Recorded
from sae_repro.tune.results import trials
from sae_repro.tune.space import FOLDER

INSTALL = "tune-ui: optuna-dashboard is not installed: pip install 'optuna-dashboard>=0.21'"


def show(study: Path, port: int, *, browser: bool) -> None:
    """Print what is shown and its address, and, if asked, open it in a browser.

    Serves it on loopback until it is ended (Ctrl-C, SIGTERM). StudyError where there are no trials
    or optuna-dashboard is missing.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise StudyError(INSTALL) from None
    path = journal_to_show(study)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with quiet():
            storage = _open(path)
            [first, *_] = storage.get_all_studies()
            print(f"{path}: {storage.get_n_trials(first._study_id)} trials", flush=True)
            with _serving(wsgi(storage), port) as server:
                announce(
                    f"http://{HOST}:{server.server_port}/dashboard/studies/{first._study_id}",
                    browser,
                )
                server.serve_forever()
    except KeyboardInterrupt:
        return


def journal_to_show(study: Path) -> Path:
    """The journal of a study's search, or one that is rebuilt from trials.csv, in .sae-repro.

    The search's own is taken where it has all the trials that trials.csv has, or where it is that
    of another search, begun since. StudyError without either.
    """
    live, recorded = study / JOURNAL, study / FOLDER / "trials.csv"
    if not recorded.is_file():
        if not _counts(live):
            raise StudyError(
                f"{recorded}: missing, and no search is under way; `dvc repro "
                f"{study / FOLDER / 'dvc.yaml'}` begins one"
            )
        return live
    finished = Recorded.of(study)
    counts = _counts(live)
    if finished.name in counts:
        complete = counts[finished.name] >= len(trials(study))
    else:
        complete = bool(counts) and live.stat().st_mtime > recorded.stat().st_mtime
    return live if complete else finished.journal()


def _counts(path: Path) -> dict[str, int]:
    """The trials of each search in a journal that shows them by the names of their metrics."""
    if not path.is_file():
        return {}
    with quiet():
        storage = _open(path)
        studies = [optuna.load_study(study_name=s.study_name, storage=storage)
                   for s in storage.get_all_studies()]  # fmt: skip
        return {
            s.study_name: len(s.get_trials(deepcopy=False))
            for s in studies
            if s.metric_names and REBUILT not in s.user_attrs
        }


def _open(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page asks every few seconds."""


def _serving(application: Any, port: int) -> WSGIServer:
    """A server on loopback: on `port`, or a free one if it is taken."""
    for candidate in (port, 0):
        try:
            return make_server(HOST, candidate, application, _Server, _Quiet)
        except OSError:
            if not candidate:
                raise
    raise AssertionError
