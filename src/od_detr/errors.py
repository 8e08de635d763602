"""Errors that a user can fix."""


class InputError(ValueError):
    """The user's input is wrong.

    The message is one line that names the file, the id, the field and the fix; the command line
    prints it as ``error: …`` and exits with status 2.
    """


class LaunchError(InputError):
    """The processes that a launcher started do not fit the options.

    All of them find it out alike, so that only the first one reports it.
    """
