"""StudyError: the exception for faults of a study, not of the program."""


class StudyError(Exception):
    """A fault that the user can repair: the message names it, its place, and what to do.

    Stages and the command line print it as it stands, without a traceback, and exit with 2.
    """
