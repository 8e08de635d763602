"""Runs a command and turns the way it ends into an exit status."""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import io
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from od_detr.cli.commands import ABSENT, COMMANDS, overview
from od_detr.cli.parsing.help import help_page
from od_detr.cli.parsing.parser import parse
from od_detr.errors import InputError, Interrupted, LaunchError, ProcessLostError
from od_detr.options.names import nearest
from od_detr.ranks import is_chief
from od_detr.signals import handled, known

LONGEST_WORD = 400  # of a message, in characters; paths have up to 255 a folder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # nothing more can be written
# How long torch's threads on a CPU wait for each other before they sleep. By default it is so long
# that beside another busy process they take each other's cores, and a step takes 20 times as long.
SPINS = "1000"
SKIPPED = 4  # done, but some inputs were skipped: the command's result lists them under "skipped"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `od-detr`.

    0 done; 1 a defect of ours; 2 wrong input; 3 values stayed non-finite; 4 done, but some inputs
    were skipped; 129, 130 and 143 stopped by SIGHUP, Ctrl-C and SIGTERM; 141 nobody reads the
    output.

    Args:
        arguments: the words after `od-detr`; those of this process by default.
    """
    if arguments is None:  # the process ends with the command
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
        atexit.register(gc.freeze)  # spares it a search for cycles, seconds long after a training
        _print_any_name()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, speaks = "--debug" in words, _speaks()
    silence = contextlib.nullcontext() if speaks else contextlib.redirect_stdout(None)
    try:
        with silence, files_explained(), ended_by_signals():
            status = run([word for word in words if word != "--debug"])
            print(end="", flush=True)
            return status
    except KeyboardInterrupt:
        return 130
    except Interrupted as stop:
        return _reported(str(stop), stop.status) if speaks else 0
    except ProcessLostError as error:  # raised in one process only
        return _reported(f"error: {error}", 1)
    except (InputError, FloatingPointError) as error:
        if debug:
            raise
        for line in getattr(error, "details", ()) if speaks else ():
            print(line)
        known_to_all = isinstance(error, LaunchError | FloatingPointError)
        status = getattr(error, "status", 1)
        return _reported(f"error: {error}", status) if speaks or not known_to_all else status


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: files that it was writing are closed.

    A training listens to them itself. What `nohup` ignores stays ignored.

    Raises:
        Interrupted: there was such a signal.
    """
    numbers = known("SIGTERM", "SIGHUP")
    with handled((each for each in numbers if signal.getsignal(each) is signal.SIG_DFL), _end):
        yield


def _end(number: int, _: FrameType | None) -> None:
    raise Interrupted("stopped", 128 + number)


@contextlib.contextmanager
def files_explained() -> Iterator[None]:
    """Reports what the system says of a file: no permission, a full disk, a name that is too long.

    Raises:
        InputError: naming the file, where the system does; it does not for a full disk.
        Interrupted: whoever read the output has enough, as `head` does.
    """
    try:
        yield
    except BrokenPipeError as error:
        if not _nobody_reads_output():
            raise
        _drop_output()
        raise Interrupted("stopped: nothing reads the output any more", 128 + 13) from error
    except OSError as error:
        name = error.filename
        if error.errno in FULL:
            name = name or ("standard output" if _is_output_full() else "a file")
            reason = f"cannot be written ({error.strerror})"
            raise InputError(f"{name}: {reason}; free some space or give another path") from error
        if name is None:
            raise
        raise InputError(f"{name}: {error.strerror}; give another path") from error


def _is_output_full() -> bool:
    """Whether standard output cannot be written; what is left of it is dropped then."""
    try:
        print(end="", flush=True)
    except OSError:
        _drop_output()
        return True
    return False


def _drop_output() -> None:
    """Leaves no error to what Python prints when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _print_any_name() -> None:
    """Lets standard output show the names of files that are not UTF-8, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _nobody_reads_output() -> bool:
    """Whether standard output is a pipe whose other end is closed."""
    asking = select.poll()
    asking.register(1, 0)
    return any(event & select.POLLERR for _, event in asking.poll(0))


def run(words: Sequence[str]) -> int:
    """Runs one command and returns its exit status: 0, or 4 if it skipped some inputs.

    Raises:
        InputError: the command or an option is unknown or wrong.
    """
    name, arguments = (words[0], words[1:]) if words else ("--help", [])
    if name == "help" and arguments and arguments[0] in COMMANDS:
        return _run_command(arguments[0], ["--help"])
    if name in ("--help", "-h", "help"):
        print(overview())
    elif name == "--version":
        from importlib.metadata import version

        print(version("od-detr"))
    elif name not in COMMANDS:
        raise _no_such_command(name)
    else:
        return _run_command(name, arguments)
    return 0


def _run_command(name: str, arguments: Sequence[str]) -> int:
    command = COMMANDS[name]
    asked = {"--help", "-h", "--help-all"} & set(arguments)
    if asked:
        everything = "--help-all" in asked
        print(help_page(name, command.options, command.summary, command.reads_config, everything))
        return 0
    options = parse(name, command.options, arguments, command.reads_config)
    result = command.run(options)
    if options.json and is_chief():
        print(json.dumps(result))
    if "error" in result:  # the command is done, and its result is that the input is wrong
        raise InputError(result["error"])
    return SKIPPED if result.get("skipped") else 0


def _no_such_command(name: str) -> InputError:
    if name in ABSENT:
        return InputError(f"{name}: {ABSENT[name]}")
    meant = next((own for own, each in COMMANDS.items() if name in each.known_as), None)
    meant = meant or nearest(name, COMMANDS)
    hint = f"did you mean {meant}?" if meant else "see od-detr --help"
    return InputError(f"{name}: no such command; {hint}")


def _speaks() -> bool:
    """Whether this process prints for all that train together."""
    try:
        return is_chief()
    except LaunchError:  # reported when training asks again
        return True


def _reported(line: str, status: int) -> int:
    print(" ".join(map(_shortened, line.split())), file=sys.stderr)
    return status


def _shortened(word: str) -> str:
    """A word as it is, or its two ends if it is too long to print."""
    return word if len(word) <= LONGEST_WORD else f"{word[:100]}…{word[-50:]}"
