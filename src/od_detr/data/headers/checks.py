"""Image headers against what the annotations say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from od_detr.data.annotations import Annotations
from od_detr.data.findings import ADD_IMAGE, Finding, error, limited, raise_errors
from od_detr.data.headers.header import OF_FILES, OF_SIZES, Header
from od_detr.data.headers.scan import read_headers

FEW, FEW_SHARE = 20, 0.05  # images of a split that a training leaves out unasked, at most
NO_FILE = Header(
    code="image-file",
    problem="is not a file of the data set",
    fix=ADD_IMAGE,
)


def with_header_findings(annotations: Annotations) -> Annotations:
    """The same data, with a finding for each image whose header is wrong; see `header_findings`."""
    headers = read_headers(annotations.paths)
    return annotations.with_findings(header_findings(annotations, headers))


def are_few(unusable: int, images: int) -> bool:
    """Whether a training on one device leaves out so many images of a split unasked."""
    return unusable <= min(FEW, FEW_SHARE * images)


def usable(annotations: Annotations) -> tuple[Annotations, list[str]]:
    """The images that can be read and have the size that is written, and a line for each other one.

    What the reader found about files concerns the others alone, and is dropped.
    """
    read = read_headers(annotations.paths)
    headers = [
        header if path else NO_FILE for path, header in zip(annotations.paths, read, strict=True)
    ]
    wrong = _wrong(annotations, headers)
    wrong |= {image for image, header in enumerate(headers) if header.code}
    lines = [str(_finding(annotations, image, headers[image])) for image in sorted(wrong)]
    left = [image for image in range(len(headers)) if image not in wrong]
    kept = annotations.selected(np.array(left, dtype=np.int64))
    findings = tuple(each for each in kept.findings if each.code not in OF_FILES)
    return replace(kept, findings=findings), lines


def raise_unless_usable(findings: Sequence[Finding]) -> None:
    """Raises the first error; where an image cannot be used, it names the option to do without.

    Raises:
        InputError: there is an error among the findings.
    """
    codes = {each.code for each in findings if each.severity == "error"}
    unusable = codes & (OF_FILES | OF_SIZES)
    raise_errors(findings, "; or give --on-unreadable skip" if unusable else "")


def header_findings(annotations: Annotations, headers: Sequence[Header]) -> list[Finding]:
    """Files that cannot be read or are not of the size that the annotations say; all are errors.

    An entry that says the size as shown, after the EXIF rotation, is right. One that says the
    stored size of a rotated image has a code of its own, `image-exif-size`, as its boxes were drawn
    on another picture than people see.

    Args:
        annotations: with the image files looked up.
        headers: one for each image, from `read_headers`.
    """
    wrong = sorted(_wrong(annotations, headers))
    found = [
        _finding(annotations, image, headers[image]) for image in wrong if annotations.paths[image]
    ]
    return limited(found)


def _wrong(annotations: Annotations, headers: Sequence[Header]) -> set[int]:
    written = annotations.sizes.tolist()
    return {
        image
        for image, header in enumerate(headers)
        # Images without a path or a size are reported by the reader.
        if min(written[image]) > 0 and (header.code or header.size != tuple(written[image]))
    }


def _finding(annotations: Annotations, image: int, header: Header) -> Finding:
    height, width = annotations.sizes[image].tolist()
    shown = f"{header.size[1]} x {header.size[0]} pixels"
    entry = f"its entry says width {width} and height {height}"
    if header.code:
        code, problem, fix = header.code, header.problem, header.fix
    elif header.stored_size == (height, width):
        code, problem = "image-exif-size", f"is {shown} after its EXIF rotation, but {entry}"
        fix = "draw the boxes on the rotated image, or save it without the EXIF orientation"
    else:
        code, problem = "image-wrong-size", f"is {shown}, but {entry}"
        fix = "correct the entry and its boxes"
    record = f"image {annotations.image_ids[image]}"
    name = annotations.paths[image] or annotations.names[image]
    return error(code, annotations.file, record, f"{name}: {problem}", fix)
