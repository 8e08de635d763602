"""Saves a detector with its model card, and uploads it to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from od_detr.detectors import save_detector
from od_detr.errors import InputError, first_line
from od_detr.files import writing
from od_detr.integrations.weights.hub import PAGE
from od_detr.integrations.weights.opening import open_weights
from od_detr.integrations.weights.publishing.card import (
    CURVES,
    metric_rows,
    model_card,
    training_options,
)
from od_detr.run_files import RunFiles

CARD = "README.md"
DESCRIBED = ("detector", "classes", "sha256")  # entries that `save_detector` writes itself


def save_with_card(source: str, directory: Path, name: str | None = None) -> None:
    """Writes `model.safetensors`, `config.json`, `README.md` and, of a run, `curves.png`.

    A `README.md` that is there already is kept.

    Args:
        source: as in `open_weights`.
        directory: folder to write, made where it is missing.
        name: the detector's name in the card; the folder's by default.

    Raises:
        InputError: there is no detector in `source`, or a file cannot be written.
    """
    detector, config = open_weights(source)
    facts = {key: value for key, value in config.items() if key not in DESCRIBED}
    save_detector(detector, directory, config["classes"], **facts)
    card = directory / CARD
    if card.exists():
        return
    run, name = RunFiles.of(source), name or directory.name
    options, rows = training_options(run), metric_rows(run)
    with writing(card):
        card.write_text(model_card(name, config, options, rows), encoding="utf-8")
    if rows and options:
        from od_detr.reporting.curves import curves

        curves({name: rows}, directory / CURVES)


def push(
    source: str,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload detector",
) -> str:
    """Uploads a detector with its model card and returns the address of the repository.

    A card that is already in the repository is kept.

    Args:
        source: as in `open_weights`.
        repository: `owner/name`; made where it is missing.
        private: whether a new repository is private; None takes the owner's default.
        token: of the hub; by default the one that `hf auth login` saved.
        commit_message: message of the upload.

    Raises:
        InputError: there is no detector in `source`, or the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    with TemporaryDirectory() as folder:
        save_with_card(source, Path(folder), repository)
        api = HfApi(token=token)
        try:
            made = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=made.repo_id,
                folder_path=folder,
                commit_message=commit_message,
                ignore_patterns=[CARD] if api.file_exists(made.repo_id, CARD) else None,
            )
        # Of the hub's client, HTTPError is a connection that fails; refusals are OSErrors.
        except (OSError, ValueError, HTTPError) as error:
            raise InputError(
                f"{repository}: cannot be uploaded ({first_line(error)}); check the name and "
                "the network, and log in with 'hf auth login'"
            ) from error
    return f"{PAGE}/{made.repo_id}"
