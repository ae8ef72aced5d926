"""Curves of cells that are being trained, sent to MLflow: the process that `sae_repro.live` starts.

It reads what training leaves anyway, checkpoints and finished folders, and writes to MLflow alone.
A run that it makes has no result yet: the stage `track` takes it over, or deletes it where the
training that ended was another. Its tag `sae_repro.live` says which rows it was given, so that rows
of another training are never mixed with them.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_repro.errors import StudyError
from sae_repro.files import read_json
from sae_repro.live import END_SECONDS, ORDER, Followed
from sae_repro.params import Cell, load, saes_by_name
from sae_repro.stage import STATE
from sae_repro.track.origin import Origin
from sae_repro.track.patience import START_S, Patience
from sae_repro.track.projection import Row, choice_labels, curve
from sae_repro.track.server import (
    connect,
    make_experiment,
    report_to,
    server_errors,
)
from sae_repro.track.unfinished import LIVE, continues, described, mine, start_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROWS_PER_BATCH = 1000
SENT_LATER = "the stage `track` sends them"


def main() -> None:
    """Follow the order in `.sae-repro` until standard input ends; never a traceback."""
    os.nice(19)
    ended = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ended,), daemon=True).start()
    warnings, patience = _Warnings(), Patience()
    report_to(patience.answered)
    threading.Thread(target=_watch, args=(patience, warnings), daemon=True).start()
    try:
        _follow(ended, patience, warnings)
    except Exception as error:
        warnings.once(error)


def _wait_for_the_end(ended: threading.Event) -> None:
    """Let the last sync take a few seconds once the stage has ended, or was killed."""
    sys.stdin.buffer.read()
    ended.set()
    timer = threading.Timer(END_SECONDS, os._exit, args=(0,))
    timer.daemon = True
    timer.start()


def _watch(patience: Patience, warnings: "_Warnings") -> None:
    """End the process where the server does not get on: `track` sends the rest."""
    while left := patience.left():
        time.sleep(min(left, 1.0))
    with suppress(Exception):
        try:
            with server_errors(Path(load("params.yaml").root), SENT_LATER):
                raise patience.overdue()
        except StudyError as error:
            warnings.once(error)
    os._exit(0)


def _follow(ended: threading.Event, patience: Patience, warnings: "_Warnings") -> None:
    order = read_json(ORDER)
    following: Following | None = None
    # nothing is sent of a training that is over before the first sync: `track` sends it
    while not ended.wait(order["seconds"]) or following is not None:
        over = ended.is_set()
        patience.start(START_S)
        try:
            following = following or Following(order["saes"])
            following.send(over=over)
        except Exception as error:
            warnings.once(error)
        patience.pause()
        if over:
            return


class _Warnings:
    """The one warning of this process: a server that fails once will fail again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given = False

    def once(self, error: Exception) -> None:
        """Print it, unless one was printed."""
        with self._lock:
            if not self._given:
                text = (
                    error if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
                )
                line = f"train: warning: no curves while training: {text}"
                print(line, file=sys.stderr, flush=True)
            self._given = True


class Following:
    """The runs of SAEs in training. The working folder is the study's."""

    def __init__(self, saes: Mapping[str, Followed]) -> None:
        study = load("params.yaml")
        self._root, self._experiment = Path(study.root), study.track.experiment
        self._study = Origin(Path()).study
        self._saes = saes
        self._cells = saes_by_name(study.cells)
        self._runs: dict[str, Run] = {}
        self._sent: dict[str, int] = {}
        """Rows sent, by name; no entry before the run of that name was found or made."""

    def send(self, *, over: bool) -> None:
        """Send the new rows of every SAE; with `over`, mark what will not go on."""
        rows = {name: curve(rows_of(sae["key"])) for name, sae in self._saes.items()}
        with server_errors(self._root, SENT_LATER):
            client = connect(self._root)
            experiment = make_experiment(client, self._experiment, self._root)
            for name in rows:
                if rows[name] and name in self._cells:
                    self._send_one(client, experiment, name, rows[name])
            for name, run in self._runs.items() if over else ():
                if not (STATE / "cells" / self._saes[name]["key"]).is_dir():
                    client.update_run(run.info.run_id, status="KILLED")

    def _send_one(
        self, client: "MlflowClient", experiment: str, name: str, rows: Sequence[Row]
    ) -> None:
        if name not in self._sent:
            self._take_up(client, experiment, name, rows)
        run = self._runs.get(name)
        start = self._sent[name]
        if run is None or len(rows) <= start:
            return
        # before the rows: it may promise rows that are missing, but none may be there unannounced
        client.set_tag(run.info.run_id, LIVE, described(rows))
        from mlflow.entities import Metric

        for first in range(start, len(rows), ROWS_PER_BATCH):
            client.log_batch(
                run.info.run_id,
                [
                    Metric(key, value, run.info.start_time + step, step)
                    for key, step, value in rows[first : first + ROWS_PER_BATCH]
                ],
            )
        self._sent[name] = len(rows)

    def _take_up(
        self, client: "MlflowClient", experiment: str, name: str, rows: Sequence[Row]
    ) -> None:
        """Find the run that an earlier, killed training left, or make one."""
        key = self._saes[name]["key"]
        recorded, unfinished = mine(client, experiment, self._study, name)
        done = any(run.data.tags.get("sae_repro.key") == key for run in recorded)
        fitting = [] if done else [run for run in unfinished if continues(run, key, rows)]
        for run in unfinished:
            if run not in fitting[:1]:
                client.delete_run(run.info.run_id)
        if fitting:
            self._runs[name] = fitting[0]
            client.update_run(fitting[0].info.run_id, status="RUNNING")
        elif not done:
            labels = self._labels(self._cells[name], self._saes[name])
            self._runs[name] = start_run(client, experiment, self._study, name, key, labels)
        self._sent[name] = 0

    def _labels(self, cell: Cell, sae: Followed) -> dict[str, str]:
        return {**choice_labels(cell, sae["hook"]), "status": "training"}


def rows_of(key: str) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl so far: of the finished cell, or of its last checkpoint."""
    finished = STATE / "cells" / key / "metrics.jsonl"
    try:
        if finished.is_file():
            return [json.loads(line) for line in finished.read_text("utf-8").splitlines()]
        return list(read_json(STATE / "checkpoints" / key / "journal.json")["metrics"])
    except (OSError, StudyError):  # none yet, or just being replaced
        return []


if __name__ == "__main__":
    main()
