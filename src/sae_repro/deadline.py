"""A deadline over all of one call to a peer: looking up its name, connecting, headers and body.

The time-outs of sockets and HTTP clients limit each wait and not their sum: a peer that sends a
byte now and then passes them for ever, and the look-up of a name has none.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class OverdueError(Exception):
    """The call did not end in time; the message says after how many seconds."""


def within(seconds: float, call: Callable[[], T], *, release: Callable[[], object]) -> T:
    """What `call` returns or raises; OverdueError where that takes more than `seconds`.

    Nothing can end a thread from outside: an overdue call is left behind in one that does not keep
    the process alive, and `release` is called to end it (closes its connection).
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    wait([future], seconds)
    if not future.done():
        release()
        raise OverdueError(f"no complete answer within {seconds:g} s")
    return future.result()
