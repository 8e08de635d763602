"""Opens one hostile input under watch and says what came of it.

Nothing is trained: a command is called in this process, or the reader that it would call first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from od_detr.cli import main
from od_detr.errors import InputError

# What may come of an input. Anything else is a defect of ours.
REFUSED = "refused"  # one line that names the file or option, and the record
WARNED = "warned"  # used, and one line says what was left out or changed
SKIPPED = "skipped"  # left out, listed, and everything else was done: status 4
FINE = "fine"  # used as it was meant, without a word
DEFECT = "defect"
MOST_SECONDS = 60


@dataclass(frozen=True)
class Case:
    """One input, and what has to come of it.

    Attributes:
        group: kind of input.
        name: the fault.
        spoil: makes the fault in a fresh copy of the sound material.
        use: opens it and returns the lines that the user sees; `InputError` refuses it.
        expected: one of the classes above.
        names: expression that the line must match: file or option, and record.
        peers: what facebookresearch/detr, rf-detr 1.4.1 and D-FINE made of it, where measured.
        follows: whether a link of the user's own may lead out of the data, which is reported.
        open_issue: why this row is not yet as expected; empty if it is.
    """

    group: str
    name: str
    spoil: Callable[[Path], object]
    use: Callable[[Path], list[str]]
    expected: str = REFUSED
    names: str = ""
    peers: str = ""
    follows: bool = False
    open_issue: str = ""

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}"


@dataclass
class Outcome:
    """What came of an input: a class, the line the user saw, and what must never happen."""

    kind: str
    line: str = ""
    wrongs: list[str] = field(default_factory=list)


class SkippedInputs(Exception):
    """A command ended with status 4; the message is what it printed."""


def outcome(case: Case, material: Path, folder: Path) -> Outcome:
    """Copies the material, spoils it and uses it."""
    shutil.copytree(material, folder, symlinks=True)
    (folder / "canary").unlink(missing_ok=True)
    outside = folder.parent / f"{folder.name}-outside"
    shutil.copytree(material / "data", outside)
    case.spoil(folder)
    before = fingerprint(folder) | fingerprint(outside)
    with WATCH.over(outside) as seen, inside(folder):
        found = used(case, folder)
    after = fingerprint(folder) | fingerprint(outside)
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    if case.follows:
        seen = [each for each in seen if not each.startswith("read outside")]
    found.wrongs += [*seen, *(f"changed {name}" for name in changed)]
    if (folder / "canary").exists():
        found.wrongs.append("code was executed")
    shutil.rmtree(folder)
    shutil.rmtree(outside)
    return found


def used(case: Case, folder: Path) -> Outcome:
    """The class of what happens, with one line for each of them."""
    try:
        with in_time():
            lines = case.use(folder)
    except SkippedInputs as skipped:
        return Outcome(SKIPPED, str(skipped))
    except InputError as error:
        line = str(error)
        wrongs = ["more than one line"] if "\n" in line or len(line) > 1500 else []
        wrongs += ["advises to load unsafely"] if "weights_only" in line else []
        return Outcome(REFUSED, line, wrongs)
    except BaseException as error:
        last = traceback.format_exception_only(error)[-1].strip()
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(DEFECT, f"{last} in {Path(where.filename).name}:{where.lineno}")
    return Outcome(WARNED, " | ".join(lines)) if lines else Outcome(FINE)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Interrupts what would wait for ever, such as reading a pipe."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {MOST_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*words: str) -> Callable[[Path], list[str]]:
    """Calls `od-detr` with these words in the folder."""

    def use(_: Path) -> list[str]:
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status = main(list(words))
        text = error.getvalue().strip()
        if status == 2:
            raise InputError(text.removeprefix("error: "))
        if status == 4:
            raise SkippedInputs(text)
        if status:
            raise RuntimeError(f"status {status}: {text}")
        return text.splitlines() + [
            each for each in out.getvalue().splitlines() if "instead" in each
        ]

    return use


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Works in the folder, so that messages show short names."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder with the digest of its content, and every link with its target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Watch:
    """Notes what no input may cause: connections, other programs, and files read outside."""

    def __init__(self) -> None:
        self.outside: str | None = None
        self.seen: list[str] = []
        self.installed = False

    @contextlib.contextmanager
    def over(self, outside: Path) -> Iterator[list[str]]:
        """Watches for the length of a `with`; reading below `outside` counts."""
        if not self.installed:  # an audit hook stays for the life of the process
            sys.addaudithook(self._hear)
            self.installed = True
        self.seen, self.outside = [], str(outside.resolve())
        try:
            yield self.seen
        finally:
            self.outside = None

    def _hear(self, event: str, args: tuple) -> None:
        if self.outside is None:
            return
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            self.seen.append(f"network: {event}")
            raise ConnectionRefusedError("no network in this test")
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
            self.seen.append(f"program: {args[0]!r}")
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            if path.startswith(self.outside):
                self.seen.append(f"read outside: {path}")


WATCH = Watch()
