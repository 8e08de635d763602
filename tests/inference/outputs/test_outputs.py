"""What `od-detr predict` writes is what was detected."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import supervision
import torch
from PIL import Image

from od_detr.errors import InputError
from od_detr.inference.files import Wanted, predict_files
from od_detr.inference.outputs.crops import folder_name
from od_detr.inference.predictor import Predictor
from od_detr.inference.videos import Frame

CLASSES = ["red", "a/b"]
BOXES = np.array([[1.2, 2.0, 11.0, 12.5], [4.0, 0.0, 24.0, 16.0]], dtype=np.float32)


class Finder(Predictor):
    """Finds the same two objects in every image, without a network."""

    def __init__(self) -> None:
        self.classes, self.category_ids, self.threshold = CLASSES, [3, 7], 0.5
        self.batches: list[int] = []

    def predict_all(
        self, images: list[torch.Tensor], threshold: float | None = None
    ) -> list[supervision.Detections]:
        self.batches.append(len(images))
        found = supervision.Detections(
            xyxy=BOXES, confidence=np.array([0.9, 0.6]), class_id=np.array([0, 1])
        )
        return [found[found.confidence >= threshold] for _ in images]


@pytest.fixture
def finder() -> Finder:
    return Finder()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A horizontal ramp of 32 x 16 pixels."""
    file = tmp_path / "ramp.png"
    Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))).save(file)
    return file


Film = Callable[..., Path]


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Writes a video of five frames at uneven times, with a second of sound."""

    def make(name: str = "clip.mp4", sound: str = "aac", frames: int = 5) -> Path:
        file = tmp_path / name
        with av.open(str(file), "w") as container:
            video = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
            voice = container.add_stream(sound, rate=8000)
            voice.codec_context.layout = "mono"
            for number in range(frames):
                level = np.full((32, 48, 3), 40 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(level, format="rgb24")
                frame.pts, frame.time_base = number * (number + 1), Fraction(1, 10)
                container.mux(video.encode(frame))
            wave = (np.sin(np.arange(8000) / 5)[None] * 8000).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
            container.mux(voice.encode(samples))
            container.mux(video.encode())
            container.mux(voice.encode())
        return file

    return make


def packets(file: Path) -> list[bytes]:
    """The sound of a video as it is stored."""
    with av.open(str(file)) as container:
        return [bytes(each) for each in container.demux(audio=0) if each.size]


def shown(file: Path) -> list[tuple[float, tuple[int, int]]]:
    """Time and size of each frame."""
    with av.open(str(file)) as container:
        return [(each.time, (each.width, each.height)) for each in container.decode(video=0)]


def test_a_drawn_video_has_the_times_and_the_very_sound_of_the_original(
    finder: Finder, film: Film, tmp_path: Path
) -> None:
    for name, sound, drawn in (
        ("clip.mp4", "aac", "clip.mp4"),
        ("other.avi", "pcm_s16le", "other.mkv"),
    ):
        original = film(name, sound)
        predict_files(finder, [str(original)], tmp_path / "out")
        copy = tmp_path / "out" / drawn
        before, after = shown(original), shown(copy)
        assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=2e-3)
        assert {size for _, size in after} == {(528, 352)}  # enlarged, so that labels are legible
        assert packets(copy) == packets(original) != []


def test_rows_of_a_video_name_frame_and_time(finder: Finder, film: Film, tmp_path: Path) -> None:
    clip = film()
    done = predict_files(finder, [str(clip)], tmp_path / "out", Wanted(batch_size=2, csv=True))
    assert (done["images"], done["detections"]) == (5, 10)
    assert finder.batches == [2, 2, 1]
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [row["frame"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rows[4]["seconds"] == pytest.approx(0.6)
    assert len({row["image_id"] for row in rows}) == 5
    with (tmp_path / "out" / "detections.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["frame"] for row in table] == [str(row["frame"]) for row in rows]


def test_a_video_that_cannot_be_read_on_is_reported_and_its_beginning_is_kept(
    finder: Finder, film: Film, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, left = film(), iter(range(3))

    def turned(pixels: np.ndarray, turns: int) -> np.ndarray:
        if next(left, None) is None:
            raise av.FFmpegError(1, "corrupt")
        return pixels

    monkeypatch.setattr("od_detr.inference.videos.np.rot90", turned)
    done = predict_files(finder, [str(clip), str(image)], tmp_path / "out")
    assert done["skipped"] == [str(clip)]
    assert done["images"] == 4
    assert len(shown(tmp_path / "out" / "clip.mp4")) == 3
    assert (tmp_path / "out" / "ramp.jpg").is_file()


def test_the_table_the_labels_and_the_crops_are_the_detections(
    finder: Finder, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_files(finder, [str(image)], out, Wanted(csv=True, yolo=True, crops=True))
    with (out / "detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    corners = [[float(row[side]) for side in ("x1", "y1", "x2", "y2")] for row in rows]
    np.testing.assert_allclose(corners, BOXES, atol=0.01)
    assert [(row["class"], row["score"]) for row in rows] == [("red", "0.9000"), ("a/b", "0.6000")]
    labels = np.loadtxt(out / "labels" / "ramp.txt")
    assert labels[:, 0].tolist() == [0, 1]
    centres, sizes = labels[:, 1:3] * [32, 16], labels[:, 3:] * [32, 16]
    np.testing.assert_allclose(
        np.hstack([centres - sizes / 2, centres + sizes / 2]), BOXES, atol=1e-3
    )
    assert (out / "classes.txt").read_text().splitlines() == CLASSES
    crops = sorted(path.relative_to(out / "crops") for path in (out / "crops").rglob("*.jpg"))
    assert crops == [Path("a_b/ramp-2.jpg"), Path("red/ramp-1.jpg")]
    crop = np.asarray(Image.open(out / "crops" / "red" / "ramp-1.jpg")).astype(float)
    assert crop.shape[:2] == (11, 10)  # from (1, 2) to (11, 13)
    np.testing.assert_allclose(crop[5, :, 0], np.arange(8, 88, 8), atol=6)


def test_only_the_chosen_classes_are_written(finder: Finder, image: Path, tmp_path: Path) -> None:
    wanted = Wanted(classes=["a/b"], yolo=True)
    assert predict_files(finder, [str(image)], tmp_path / "out", wanted)["detections"] == 1
    assert (tmp_path / "out" / "labels" / "ramp.txt").read_text().startswith("1 ")
    with pytest.raises(InputError, match=r"classes rad: .*did you mean red"):
        predict_files(finder, [str(image)], tmp_path / "out", Wanted(classes=["rad"]))


def test_an_image_without_detections_has_an_empty_label_file(
    finder: Finder, image: Path, tmp_path: Path
) -> None:
    wanted = Wanted(threshold=0.95, yolo=True, csv=True, crops=True)
    assert predict_files(finder, [str(image)], tmp_path / "out", wanted)["detections"] == 0
    assert (tmp_path / "out" / "labels" / "ramp.txt").read_text() == ""
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []


def test_a_folder_may_hold_images_and_videos(
    finder: Finder, film: Film, image: Path, tmp_path: Path
) -> None:
    film(), film("ramp.mp4")
    done = predict_files(finder, [str(tmp_path)], tmp_path / "out", Wanted(yolo=True))
    assert done["images"] == 11
    drawn = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert drawn == {"clip.mp4", "ramp.mp4", "ramp-2.jpg", "detections.json", "classes.txt"}
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 11


def test_folders_above_the_images_need_not_be_readable(
    finder: Finder, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `/home`, which others may pass and not list."""
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder in tmp_path.parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert predict_files(finder, [str(image)], tmp_path / "out")["images"] == 1


def test_a_source_is_never_overwritten(finder: Finder, film: Film) -> None:
    clip = film()
    before = clip.read_bytes()
    with pytest.raises(InputError, match=r"clip\.mp4: .*overwritten"):
        predict_files(finder, [str(clip)], clip.parent)
    assert clip.read_bytes() == before


def test_a_folder_that_predict_did_not_write_is_left_alone(
    finder: Finder, image: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "train" / "labels" / "ramp.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("0 0.5 0.5 1 1\n")
    with pytest.raises(InputError, match=r"train: holds labels .*give a new or an empty folder"):
        predict_files(finder, [str(image)], tmp_path / "train", Wanted(yolo=True))
    assert [path for path in (tmp_path / "train").rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "0 0.5 0.5 1 1\n"


def test_predict_replaces_what_it_wrote_before(finder: Finder, image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".gitkeep").touch()
    for threshold, lines in ((0.5, 2), (0.8, 1)):
        predict_files(finder, [str(image)], tmp_path / "out", Wanted(threshold, yolo=True))
        labels = (tmp_path / "out" / "labels" / "ramp.txt").read_text()
        assert len(labels.splitlines()) == lines


def test_the_files_are_whole_when_one_of_them_cannot_be_opened(
    finder: Finder, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict_files(finder, [str(image)], out)
    (out / "labels").touch()
    with pytest.raises(FileExistsError, match="labels"):
        predict_files(finder, [str(image)], out, Wanted(yolo=True))
    assert json.loads((out / "detections.json").read_text()) == []


def test_a_full_disk_is_one_line_that_names_the_folder(
    finder: Finder, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "detections.json").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"out: cannot be written \(No space left.*\); free some"):
        predict_files(finder, [str(image)], out)


def test_a_picture_that_does_not_fit_is_no_success(
    finder: Finder, image: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(InputError, match=r"out: cannot be written \(File too large\)"):
            predict_files(finder, [str(image)], tmp_path / "out", Wanted(threshold=1.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_names_that_are_not_utf8_are_written_as_text(finder: Finder, tmp_path: Path) -> None:
    """Old archives hold such names; two of them stay different."""
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name in (b"caf\xe9.png", b"caf\xe8.png"):
        Image.new("RGB", (32, 16)).save(folder / os.fsdecode(name))
    (folder / os.fsdecode(b"\xff.png")).write_text("no image")
    done = predict_files(finder, [str(folder)], out, Wanted(csv=True, yolo=True, crops=True))
    names = [f"{folder}/caf\\xe8.png", f"{folder}/caf\\xe9.png"]
    rows = json.loads((out / "detections.json").read_text())
    assert [row["file_name"] for row in rows[::2]] == names
    assert [row["image_id"] for row in rows[::2]] == names
    with (out / "detections.csv").open(encoding="utf-8") as opened:
        assert [row["file_name"] for row in csv.DictReader(opened)][::2] == names
    assert sorted(map(os.fsencode, (out / "labels").iterdir())) == [
        os.fsencode(out / "labels") + name for name in (b"/caf\xe8.txt", b"/caf\xe9.txt")
    ]
    assert done["skipped"] == [f"{folder}/\\xff.png"]


@pytest.mark.parametrize("step", ["start_encoding", "mux", "close"])
def test_a_video_that_cannot_be_written_is_named_and_closed(
    step: str, finder: Finder, film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, which FFmpeg meets anywhere from the header to the last byte."""
    clip, opened = film(frames=2), []
    open_really = av.open

    class Full:
        def __init__(self, container: av.container.OutputContainer) -> None:
            self.container, self.closed = container, False
            opened.append(self)

        def __getattr__(self, name: str) -> object:
            return self.fail if name == step else getattr(self.container, name)

        def fail(self, *_: object) -> None:
            raise av.FFmpegError(28, "No space left on device")

        def close(self) -> None:
            self.container.close()
            self.closed = True
            if step == "close":
                self.fail()

    def open_(file: str, mode: str = "r") -> object:
        return Full(open_really(file, mode)) if mode == "w" else open_really(file, mode)

    monkeypatch.setattr(av, "open", open_)
    with pytest.raises(InputError, match=r"out/clip\.mp4: .*No space left"):
        predict_files(finder, [str(clip)], tmp_path / "out")
    assert [each.closed for each in opened] == [True]
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) >= 2


def test_the_frames_of_a_camera_become_a_video(
    finder: Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = Frame(torch.zeros(3, 601, 601, dtype=torch.uint8), seconds=0.0)
    frames = iter([frame] * 3)
    monkeypatch.setattr("od_detr.inference.files.frames_of_camera", lambda number: frames)
    done = predict_files(finder, ["0"], tmp_path / "out")
    assert done["images"] == 3
    seen = shown(tmp_path / "out" / "camera0.mkv")
    assert [size for _, size in seen] == [(602, 602)] * 3
    assert len({time for time, _ in seen}) == 3


def test_a_camera_that_cannot_be_opened_leaves_earlier_results_as_they_are(
    finder: Finder, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "detections.json").write_text("[1]")
    with pytest.raises(InputError, match="camera 97"):
        predict_files(finder, ["97"], output)
    with pytest.raises(InputError, match="camera 97"):
        predict_files(finder, ["97"], tmp_path / "new")
    assert (output / "detections.json").read_text() == "[1]"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [("a/b", "a_b"), ("..", "_"), ("", "_"), ("C:\\x", "C__x"), ("Kind", "Kind")],
)
def test_a_class_is_always_one_folder(name: str, folder: str) -> None:
    assert folder_name(name) == folder
