"""Text files, which must be UTF-8; a byte order mark at the start is none of the text."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from sae_repro.errors import Named, StudyError


@contextmanager
def decoded(file: BinaryIO, what: Named, *, newline: str) -> Iterator[TextIO]:
    """The text of `file` from its start; `newline` as of `open`. `file` stays open."""
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline)
    try:
        yield text
    except UnicodeDecodeError:
        raise _not_utf8(file, what) from None
    finally:
        text.detach()


def _not_utf8(file: BinaryIO, what: Named) -> StudyError:
    file.seek(0)
    for number, line in enumerate(file, 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
            return StudyError(
                f"{what} is not UTF-8 (line {number}, byte {error.start + 1} of it); convert it, "
                f"e.g. iconv -f {'utf-16' if utf16 else 'latin1'} -t utf-8"
            )
    return StudyError(f"{what} is not UTF-8; convert it")


def without_nul(lines: Iterable[str], what: Named) -> Iterator[str]:
    """`lines`; StudyError at a NUL: UTF-16 without a mark, or a file that a crash left in part."""
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise StudyError(
                f"{what}: line {number} has a NUL byte, which no text has; is the file UTF-16, or "
                "cut off? Convert it to UTF-8, or fetch it again"
            )
        yield line
