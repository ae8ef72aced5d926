"""The lock of an Optuna journal: a killed owner's lock is removed, a living one's is waited for.

Optuna's own lock is a symbolic link beside the journal, which a kill leaves behind. A link whose
target does not exist from where it lies, such as one made with a relative path, is then waited for
without end.

Here a writer holds two locks: `journal.log.owner`, which the kernel releases with its owner, and
inside it Optuna's link, for processes that open the journal with Optuna alone. Who has the first
knows that a link made here is left over. Another's link is removed once it has stood for as long as
Optuna itself waits; it is held for the milliseconds of one append.
"""

import os
import sys
import time
from pathlib import Path

from filelock import FileLock
from optuna.storages.journal import JournalFileSymlinkLock

GRACE_S = 30.0
_LONGEST_SLEEP_S = 0.25


class JournalLock(JournalFileSymlinkLock):
    """The lock of the journal `path`; stays the same when the working directory changes."""

    def __init__(self, path: Path) -> None:
        path = path.absolute()
        super().__init__(str(path))
        self._owner = FileLock(path.with_name(f"{path.name}.owner"))
        self._link = path.with_name(f"{path.name}.lock")
        # an existing file, as Optuna wants it, by a name that no other writer gives it
        self._target = f"{path.parent}/./{path.name}"

    def acquire(self) -> bool:
        """Wait for the lock; True."""
        self._owner.acquire()
        try:
            self._make_link()
        except BaseException:
            self._owner.release()
            raise
        return True

    def release(self) -> None:
        """Give the lock back."""
        try:
            self._link.unlink(missing_ok=True)
        finally:
            self._owner.release()

    def _make_link(self) -> None:
        seen: tuple[int, int] | None = None
        since, sleep = time.monotonic(), 0.001
        while True:
            try:
                os.symlink(self._target, self._link)  # noqa: PTH211 (a Path drops the dot)
                return
            except FileExistsError:
                if self._is_own():
                    self._link.unlink(missing_ok=True)
                    continue
            found = self._identity()
            if found != seen:
                seen, since, sleep = found, time.monotonic(), 0.001
            elif time.monotonic() - since > GRACE_S:
                print(
                    f"tune: {self._link}: unchanged for {GRACE_S:g} s, so a killed writer left it; "
                    "removed",
                    file=sys.stderr,
                )
                self._link.unlink(missing_ok=True)
            time.sleep(sleep)
            sleep = min(2 * sleep, _LONGEST_SLEEP_S)

    def _is_own(self) -> bool:
        """Whether the link was made by this class: its maker is dead, or had the other lock."""
        try:
            return os.readlink(self._link) == self._target  # noqa: PTH115 (as above)
        except OSError:  # gone, or a file that Optuna's other lock made
            return False

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self._link)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns
