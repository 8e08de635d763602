"""The one error a user can mend."""


class InputError(ValueError):
    """The user's input is wrong.

    The message is one line that names the file, the id, the field and the mend; the command line
    prints it as ``error: …`` and exits with status 2.
    """
