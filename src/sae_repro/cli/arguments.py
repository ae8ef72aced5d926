"""Arguments of the command line, checked before any command has them."""

from sae_repro.errors import StudyError, one_line


def check_arguments(arguments: list[str]) -> None:
    """StudyError for a path or name that could end a line of a message, and forge the next.

    The text of `explain` and `steer` may have lines and tabs: what is shown of it escapes them.
    """
    reads_text = arguments[:1] in (["explain"], ["steer"])
    for number, argument in enumerate(arguments):
        if one_line(argument) == argument:
            continue
        if reads_text and not argument.startswith("-") and arguments[number - 1][:1] != "-":
            if argument.encode(errors="replace").decode() == argument:
                continue
            raise StudyError(f"{one_line(argument)}: the text is not UTF-8; write it as such")
        raise StudyError(
            f"{one_line(argument)}: holds a character that no line can show; rename it"
        )
