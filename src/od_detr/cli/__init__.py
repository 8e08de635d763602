"""The command line: `program.py` runs a command, `commands.py` lists them, each has its own file.

A command imports what it needs when it runs, so that `od-detr --help` answers at once.
"""

from od_detr.cli.program import main

__all__ = ["main"]
