"""Training curves in MLflow while cells are trained: a process of its own, which only reads.

It is started here and ended here. It can neither stop nor change training, and takes the processor
only when nothing else wants it; `sae_repro.track.live` is what it runs.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from sae_repro.errors import StudyError
from sae_repro.files import write_json
from sae_repro.params import Track, check_section, read_yaml
from sae_repro.stage import STATE

ORDER = STATE / "live.json"
"""What the process is to follow; a file, because a pipe can block."""
END_SECONDS = 3.0
"""The time that a last sync may take when training is over, and the most that a server can cost."""


class Followed(TypedDict):
    """An SAE in training."""

    key: str
    """Names its checkpoint and, once it is finished, its folder in the store."""
    hook: str


@contextmanager
def curves(saes: Mapping[str, Followed]) -> Iterator[None]:
    """While the block runs, the curves of `saes` are sent every `track.live_seconds`; 0: never.

    `saes` are by name, as `params.saes_by_name` makes it. No fault of the process or of the server
    reaches the block.
    """
    process = _start(saes)
    try:
        yield
    finally:
        if process is not None:
            _end(process)


def _start(saes: Mapping[str, Followed]) -> "subprocess.Popen[bytes] | None":
    try:
        # not declared in dvc.yaml: it changes no output of the stage
        settings = check_section(
            Track, read_yaml(Path("params.yaml")).get("track", {}), within="track"
        )
        if not settings.live_seconds:
            return None
        write_json(ORDER, {"seconds": settings.live_seconds, "saes": dict(saes)})
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "sae_repro.track.live"],
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=subprocess.DEVNULL,
            # Ctrl-C is not for it; in a session of its own Linux would not weigh its niceness
            # against training (sched(7), autogroups)
            process_group=0,
        )
    except (OSError, StudyError) as error:
        print(f"train: warning: no curves while training: {error}", file=sys.stderr)
        return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
