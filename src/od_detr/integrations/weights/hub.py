"""Downloads repositories of the Hugging Face hub, or finds them in its local cache."""

from __future__ import annotations

import re
from pathlib import Path

from od_detr.errors import InputError

PREFIX = "hf:"
ON_COCO = f"{PREFIX}SenseTime/deformable-detr-with-box-refine"  # a detector trained on COCO
PAGE = "https://huggingface.co"
CONFIGURATIONS, SAFE, PICKLED = "*.json", "*.safetensors", "*.bin"


def is_hub_name(source: str) -> bool:
    """Whether `source` names a repository of the hub: `hf:OWNER/NAME`."""
    return source.startswith(PREFIX)


def as_source(source: str | Path) -> str:
    """Adds the prefix `hf:` to an `owner/name` that cannot be a path: no folder has this name."""
    text = str(source)
    named = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", text)
    return f"{PREFIX}{text}" if named and not Path(text).parent.exists() else text


def downloaded(source: str) -> Path:
    """Downloads the configuration and weights of a repository and returns their local folder.

    Files in the local cache are used if they are unchanged, if there is no network, or if
    `HF_HUB_OFFLINE` is set.

    Args:
        source: `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`.

    Raises:
        InputError: the name is not valid, or the repository is neither on the hub nor in the cache.
    """
    match = re.fullmatch(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
    if match is None:
        raise InputError(f"{source}: not a name on the hub; write {PREFIX}OWNER/NAME")
    repository, revision = match.groups()
    folder = _snapshot(source, repository, revision, [CONFIGURATIONS, SAFE])
    if not any(folder.glob(SAFE)):
        folder = _snapshot(source, repository, revision, [CONFIGURATIONS, PICKLED])
    return folder


def _snapshot(source: str, repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

    page = f"{PAGE}/{repository}"
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{source}: the hub has no such repository, or it needs a token ('hf auth login'); "
            f"see {page}"
        ) from error
    # Of the hub's client, HTTPError is a connection that fails; refusals are OSErrors.
    except (OSError, ValueError, HTTPError) as error:
        raise InputError(
            f"{source}: cannot be downloaded and is not in the local cache; download the files "
            f"from {page}/tree/main and give their folder"
        ) from error
    return Path(folder)
