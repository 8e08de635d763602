"""Pascal VOC data sets: one XML file an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from od_detr.data.annotations import LARGEST, Annotations, Categories
from od_detr.data.counts import counted
from od_detr.data.findings import Finding, error, warning
from od_detr.data.formats.assembled import LabelledImage, assembled
from od_detr.data.formats.choices import ALL, NAMES, Choices, Readers, files_in
from od_detr.data.headers.header import read_header
from od_detr.data.image_formats import IMAGE_SUFFIXES
from od_detr.data.preparation.placing import Listing

Files = Sequence[Path]
LARGEST_XML = 16 << 20
LONGEST_SIDE = 1 << 24  # pixels; no format that is read has longer ones
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_readers(data: Path, choices: Choices) -> Readers:
    """The splits of a folder in Pascal VOC layout.

    ``Annotations/*.xml`` with images in ``JPEGImages`` and lists of names in ``ImageSets/Main``;
    the same inside of ``VOCdevkit`` or ``VOC2012``, where several years are joined split by split;
    ``train/*.xml`` beside their images as Roboflow exports them, or in ``train/annotations``; or
    XML files in one folder: a set without splits. Of several years, those without lists of names
    are left out if others have them.
    """
    if files := files_in(data / "Annotations", ".xml", below=True):
        lists = _listed(data, files)
        by_folder = {} if lists else _by_folder(data, choices)
        return by_folder or _joined(data, {data: lists or {ALL: files}}, choices)
    if years := _years(data):
        return _joined(data, years, choices)
    if splits := _by_folder(data, choices):
        return splits
    for folder in (data, data / "annotations"):
        if files := files_in(folder, ".xml"):
            return {ALL: partial(read_voc, data, [(data, files)], choices)}
    return {}


def _by_folder(data: Path, choices: Choices) -> Readers:
    splits: Readers = {}
    for split, words in NAMES.items():
        for word in words:
            own, shared = data / word, data / "Annotations" / word
            for folder in (own, own / "Annotations", own / "annotations", shared):
                files = files_in(folder, ".xml")
                if files and split not in splits:
                    root = data if folder == shared else own
                    splits[split] = partial(read_voc, root, [(root, files)], choices)
    return splits


def _years(data: Path) -> dict[Path, Mapping[str, Files]]:
    """The files of each year by split; a folder that is also there as a link is one year."""
    years: dict[Path, Mapping[str, Files]] = {}
    real: set[Path] = set()
    for root in (*sorted(data.glob("VOC*")), *sorted(data.glob("VOCdevkit/VOC*"))):
        files = files_in(root / "Annotations", ".xml", below=True)
        if files and root.resolve() not in real:
            real.add(root.resolve())
            years[root] = _listed(root, files) or {ALL: files}
    return years


def _joined(data: Path, roots: Mapping[Path, Mapping[str, Files]], choices: Choices) -> Readers:
    """The splits of one or several folders with `Annotations`."""
    used = {root: files for root, files in roots.items() if ALL not in files} or roots
    found = [_unlisted(root, files[ALL]) for root, files in roots.items() if root not in used]
    years = _years_of_names(used) if len(used) > 1 else {}
    splits: Readers = {}
    for split in (*NAMES, ALL):
        parts = [(root, files[split]) for root, files in used.items() if split in files]
        if parts:
            file = parts[0][0] if len(used) == 1 else data
            repeated = _repeated(file, parts, years)
            splits[split] = partial(read_voc, file, parts, choices, (*found, *repeated))
    return splits


def _unlisted(root: Path, files: Files) -> Finding:
    left_out = counted(len(files), "XML file")
    problem = f"no lists in ImageSets/Main, as other years have; {left_out} not read"
    return warning("voc-lists", root, "", problem, "add the lists, or give this folder alone")


def _name(file: Path, root: Path) -> str:
    """What lists call an XML file; they may also name one that lies elsewhere."""
    folder = (root / "Annotations").as_posix()
    return file.with_suffix("").as_posix().removeprefix(f"{folder}/")


def _years_of_names(roots: Mapping[Path, Mapping[str, Files]]) -> dict[str, list[str]]:
    """The years of each name in any split."""
    years: dict[str, list[str]] = {}
    for root, splits in roots.items():
        for name in {_name(file, root) for files in splits.values() for file in files}:
            years.setdefault(name, []).append(root.name)
    return years


def _repeated(
    source: Path, parts: Sequence[tuple[Path, Files]], years: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Names of a split that are also in another year, as in a merged one beside its parts."""
    names = [_name(file, root) for root, files in parts for file in files] if years else []
    again = [name for name in names if len(years[name]) > 1]
    if not again:
        return []
    problem = f"{again[0]!r} is in {' and '.join(years[again[0]])}"
    fix = "keep one if it is one picture: it is trained on twice, or trained and evaluated on"
    return [warning("voc-years", source, "", problem, fix, len(again))]


def _listed(root: Path, files: Files) -> dict[str, Files]:
    """The files of the splits that are lists of names."""
    folder = root / "Annotations"
    file_of = {_name(file, root): file for file in files}
    lists = root / "ImageSets" / "Main"
    splits: dict[str, Files] = {}
    for split in NAMES:
        names = [split] + (["trainval"] if split == "train" else [])
        file = next((lists / f"{n}.txt" for n in names if (lists / f"{n}.txt").is_file()), None)
        if file is None:
            continue
        lines = file.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        stems = [_stem(line.strip(), file_of) for line in lines if line.strip()]
        splits[split] = [file_of.get(stem, folder / f"{stem}.xml") for stem in stems]
    return splits


def _stem(line: str, known: Collection[str]) -> str:
    """The name in a line, which may have blanks; lists of one class have a number after it."""
    candidates = (line, line.rsplit(None, 1)[0])
    return next((name for name in candidates if name in known), line.split()[0])


def read_voc(
    source: Path,
    parts: Sequence[tuple[Path, Files]],
    choices: Choices,
    findings: Sequence[Finding] = (),
) -> Annotations:
    """Reads the XML files of one split; classes are their object names in alphabetical order.

    Args:
        source: names the split in messages.
        parts: folders of images, and the XML files of each.
        choices: what the user chose about the data.
        findings: what is already known about the split.
    """
    found = list(findings)
    read, stale, listing = [], [], Listing()
    for root, files in parts:
        for file in files:
            if (each := _read(file, root, choices, listing, found, stale)) is not None:
                read.append(each)
    names = sorted({name for _, objects in read for name, *_ in objects})
    label_of = {name: label for label, name in enumerate(names)}
    images = []
    for image, objects in read:
        image.objects += [
            (label_of[name], box[0], box[1], box[2], box[3], crowd) for name, box, crowd in objects
        ]
        images.append(image)
    if not names:
        problem = "no XML file has an object"
        found.append(error("no-objects", source, "", problem, "label the images"))
    found += [*_zeros(images, source, choices), *_stale(stale), *_shared(images, source)]
    categories = Categories(tuple(range(1, len(names) + 1)), tuple(names), ("",) * len(names))
    return assembled(source, "voc", images, categories, found)


Object = tuple[str, tuple[float, float, float, float], bool]


def _read(
    file: Path,
    root: Path,
    choices: Choices,
    listing: Listing,
    found: list[Finding],
    stale: list[tuple[Path, str]],
) -> tuple[LabelledImage, list[Object]] | None:
    try:
        if file.stat().st_size > LARGEST_XML:
            raise ElementTree.ParseError("larger than 16 MB")
        tree = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        fix = "export the annotations again"
        found.append(error("xml", file, "", f"cannot be read ({reason})", fix))
        return None
    name = (tree.findtext("filename") or "").strip().replace("\\", "/")
    written = name.rpartition("/")[2]
    path = _image(file, written, root, listing)
    if path is None:
        problem = f"filename {name!r} is not a file in JPEGImages, images or next to the XML file"
        found.append(error("image-file", file, "", problem, "add the image or remove the XML file"))
    elif Path(written).stem != path.stem and written in listing.files(str(path.parent)):
        stale.append((file, written))
    size = tuple(_whole(tree.findtext(f"size/{side}")) for side in ("height", "width"))
    if path is not None and min(size) < 1:
        header = read_header(path)
        size = header.size
        if header.code:
            found.append(error(header.code, path, "", header.problem, header.fix))
    name = path.name if path is not None else name or file.stem
    image = LabelledImage(name, str(path or ""), (size[0], size[1]))
    return image, _objects(tree, file, choices, found)


def _whole(text: str | None) -> int:
    """A number of pixels; 0, which has the image's file asked, where it makes no sense."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0
    return int(number) if 0 < number < LONGEST_SIDE else 0


def _image(file: Path, name: str, root: Path, listing: Listing) -> Path | None:
    """The image of an XML file: of its own name, else of the name that it gives.

    Who renames images renames their XML files with them, but not what is written there.
    """
    inner = Path()
    if file.is_relative_to(root / "Annotations"):  # a folder there has its like among the images
        inner = file.parent.relative_to(root / "Annotations")
    folders = [file.parent, root / "JPEGImages" / inner, root / "images" / inner, root / inner]
    names = [f"{file.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
    names += [f"{file.stem}{suffix.upper()}" for suffix in IMAGE_SUFFIXES]
    names = [name, *names] if Path(name).stem == file.stem else [*names, name]
    listed = [(folder, listing.files(str(folder))) for folder in folders]
    found = (folder / each for each in names for folder, files in listed if each in files)
    # Some file systems find what is written in another case.
    unlisted = (listing.find(str(folder), name) for folder in folders)
    return next(found, None) or next((Path(path) for path in unlisted if path), None)


def _objects(
    tree: ElementTree.Element, file: Path, choices: Choices, found: list[Finding]
) -> list[Object]:
    objects = []
    for number, entry in enumerate(tree.iter("object"), 1):
        name = (entry.findtext("name") or "").strip()
        box = _box(entry, choices.voc_origin)
        if not name or box is None:
            problem = "name is missing" if not name else "bndbox has no xmin < xmax and ymin < ymax"
            fix = "write a class name" if not name else "write four finite numbers"
            found.append(error("voc-object", file, f"object {number}", problem, fix))
            continue
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append((name, box, difficult and choices.difficult == "ignore"))
    return objects


def _box(entry: ElementTree.Element, origin: int) -> tuple[float, float, float, float] | None:
    """The box from the left edge of its first pixel to the right edge of its last one.

    Counted from 1, the first pixel begins at xmin - 1 and the last one ends at xmax.
    """
    try:
        left, top, right, bottom = (
            float(entry.findtext(f"bndbox/{corner}") or "nan") for corner in CORNERS
        )
        left, top = left - origin, top - origin
    except ValueError:
        return None
    if not all(abs(each) < LARGEST for each in (left, top, right, bottom)):
        return None
    if right < left or bottom < top:
        return None
    return left, top, right - left, bottom - top


def _zeros(images: Sequence[LabelledImage], root: Path, choices: Choices) -> list[Finding]:
    """A coordinate of 0 shows that a file does not count pixels from 1."""
    if choices.voc_origin == 0:
        return []
    count = sum(min(x, y) < 0 for image in images for _, x, y, *_ in image.objects)
    if not count:
        return []
    problem = f"{count} objects have a coordinate of 0, so pixels seem to be counted from 0"
    return [warning("voc-origin", root, "", problem, "give --voc-origin 0", count)]


def _stale(files: Sequence[tuple[Path, str]]) -> list[Finding]:
    """XML files whose image has their own name, but which name another image that is there."""
    if not files:
        return []
    file, name = files[0]
    problem = f"filename {name!r} is not the image of the XML file's own name, which is taken"
    fix = "correct filename, or rename the file"
    return [warning("voc-filename", file, "", problem, fix, len(files))]


def _shared(images: Sequence[LabelledImage], source: Path) -> list[Finding]:
    """Images that several XML files describe."""
    counts = Counter(image.path for image in images if image.path)
    again = [path for path, count in counts.items() if count > 1]
    if not again:
        return []
    problem = f"{again[0]} is the image of {counts[again[0]]} XML files"
    fix = "join them in one, or the image is trained on more than once"
    count = sum(counts[path] - 1 for path in again)
    return [warning("image-listed-twice", source, "", problem, fix, count)]
