"""Reads a YAML file of options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from od_detr.errors import InputError
from od_detr.files import read_text
from od_detr.options.fields import options_of
from od_detr.options.reading import checked_value, flatten
from od_detr.plain_yaml import parse_yaml


def read_config(options: type, file: Path, label: str = "") -> dict[str, Any]:
    """The checked values of a YAML file of options by dotted name; earlier names are translated.

    Args:
        options: the dataclass that the options are for.
        file: the YAML file.
        label: stands before the file in messages, such as `--config `. Without it the file is a
            run's own, whose earlier names are nobody's to change.

    Raises:
        InputError: the file cannot be read, has an unknown option or a wrong value.
    """
    where = f"{label}{file}"
    try:
        content = parse_yaml(read_text(file, "YAML file of options"))
    except InputError as error:
        raise InputError(f"{label}{error}") from error
    except ValueError as error:
        raise InputError(f"{where}: {error}; correct it or write a new file") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{where}: holds no options; write lines such as 'epochs: 24'")

    def naming(name: str) -> str:
        return f"{where}: {name}"

    known = options_of(options)
    values = flatten(options, content, naming, warn=bool(label))
    return {name: checked_value(known[name], value, naming) for name, value in values.items()}
