"""Work on MLflow in a process of its own, which is ended where the server does not get on.

Nothing inside a process can end a request that drips, a look-up of a name, or a pause that a
Retry-After asked for. What was sent stays, and the next sync sends the rest: it completes what was
interrupted anywhere.
"""

import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sae_repro.errors import StudyError
from sae_repro.track.patience import START_S, Patience
from sae_repro.track.server import report_to

P = ParamSpec("P")
T = TypeVar("T")

MOST_MEMORY = 2 << 30
"""Bytes that the process may come to hold beyond those at its start: an answer has no end."""


def apart(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What `function`, of a module, returns or raises in another process.

    OverdueError where the server is too slow (see `Patience`), MemoryError where its answer is too
    large; other errors than StudyError become RuntimeError. The process ends with this one.
    """
    ours, theirs = Pipe()
    with ours, _started(theirs) as process:
        theirs.close()
        try:
            # by a pipe between these two processes only
            ours.send_bytes(pickle.dumps((function, args, options, MOST_MEMORY)))
            kind, value = _result(ours)
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            raise RuntimeError(
                f"the process that sends to MLflow was ended ({process.returncode})"
            ) from None
        finally:
            process.kill()
    if kind == "returned":
        return value  # type: ignore[no-any-return]
    if kind == "study error":
        raise StudyError(value)
    raise MemoryError(value) if kind == "memory" else RuntimeError(value)


def _started(connection: Connection) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", __name__, str(connection.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[connection.fileno()],
        process_group=0,  # Ctrl-C is for this process, which ends the other
    )


def _result(connection: Connection) -> tuple[str, Any]:
    patience = Patience()
    patience.start(START_S)
    while connection.poll(patience.left()):
        kind, value = connection.recv()
        if kind != "answered":
            return kind, value
        patience.answered(value)
    raise patience.overdue()


def main() -> None:
    """Carry out the order that comes through the connection whose number is the argument."""
    connection = Connection(int(sys.argv[1]))
    function, args, options, most_memory = pickle.loads(connection.recv_bytes())
    lock = threading.Lock()

    def say(kind: str, value: Any) -> None:
        with lock:
            connection.send((kind, value))

    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    most = _held() + most_memory
    threading.Thread(target=_limit_memory, args=(most, say), daemon=True).start()
    report_to(lambda upload: say("answered", upload))
    try:
        say("returned", function(*args, **options))
    except StudyError as error:
        say("study error", str(error))
    except Exception as error:
        say("error", f"{type(error).__name__}: {error}")


def _end_with_parent(connection: Connection) -> None:
    connection.poll(None)  # nothing else comes: it is the end
    os._exit(1)


def _limit_memory(most: int, say: Callable[[str, Any], None]) -> None:
    """End the process where an answer of the server is larger than any that is right."""
    while _held() <= most:
        time.sleep(0.1)
    say("memory", "an answer of the server fills the memory")
    os._exit(1)


def _held() -> int:
    """Bytes that this process holds; where no file says so, the most that it has held."""
    try:
        # on Linux, the most that was held counts the process that started this one
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
