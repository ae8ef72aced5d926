"""The one exception that means "the study, not the program, needs a change"."""


class StudyError(Exception):
    """Something the user can mend: the message names what, where, and what to do.

    Stages and the command line print it as it stands, without a traceback, and exit with 2.
    """
