"""Display of jobs that run side by side: one progress bar, and a line per finished job."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sae_repro.progress import bar, say


class Display:
    """Shows the sum of what all workers report, and the line of each job that is done.

    Workers on this machine leave their lines in `folder`, whatever hands them their jobs: joblib
    passes on the results of some of its backends when all jobs are done, and not before.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], units: Sequence[int], what: str, unit: str
    ) -> None:
        self.folder, self._names, self._units = folder, names, units
        self._done = np.memmap(folder / "done", dtype=np.int64, mode="w+", shape=(len(names),))
        self._bar = bar(f"{what} ×{len(names)}", unit=unit, total=sum(units))
        self._printed: set[int] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def finish(self, lines: Sequence[str | None]) -> None:
        """Print those of `lines`, by number, that no worker left in the folder."""
        self._stop.set()
        self._thread.join()
        self._look()
        for number, line in enumerate(lines):
            self.say_once(number, line)

    def say_once(self, number: int, line: str | None) -> None:
        """Print the line of a job, unless it was printed."""
        with self._lock:
            if number not in self._printed:
                self._printed.add(number)
                if line:
                    say(line)

    def report(self, number: int, done: int) -> None:
        """Note the units done of a job on another machine."""
        self._done[number] = done

    def arrived(self, number: int, line: str | None) -> None:
        """Note that a job on another machine has ended."""
        self._done[number] = self._units[number]
        self.say_once(number, line)

    def in_work(self) -> str:
        """The jobs that were begun on this machine and have not ended, to follow a message."""
        begun = {int(path.stem) for path in self.folder.glob("*.begun")}
        ended = {int(path.stem) for path in self.folder.glob("*.line")}
        names = [self._names[number] for number in sorted(begun - ended)]
        if not names:
            return ""
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f" (in work: {', '.join(names[:3])}{more})"

    def _poll(self) -> None:
        while not self._stop.wait(0.3):
            self._look()

    def _look(self) -> None:
        self._bar.update(int(self._done.sum()) - self._bar.n)
        for path in sorted(self.folder.glob("*.line"), key=lambda path: path.stat().st_mtime_ns):
            self.say_once(int(path.stem), path.read_text(encoding="utf-8"))

    def __enter__(self) -> "Display":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish(())
        self._bar.close()
