"""Videos are read frame by frame."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from od_detr.errors import InputError
from od_detr.inference.videos import (
    frames_of,
    frames_of_camera,
    is_camera,
    is_video,
    number_of_frames,
)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Five grey frames of 48 x 32 pixels, each brighter than the one before."""
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for level in range(0, 250, 50):
            pixels = np.full((32, 48, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file


def test_the_frames_of_a_video_come_in_order_as_rgb_pixels(video: Path) -> None:
    frames = list(frames_of(video))
    assert is_video(video)
    assert number_of_frames(video) == 5
    assert [tuple(frame.pixels.shape) for frame in frames] == [(3, 32, 48)] * 5
    assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    levels = [float(frame.pixels.float().mean()) for frame in frames]
    np.testing.assert_allclose(levels, range(0, 250, 50), atol=4)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100, None])
def test_what_is_no_video_is_refused_on_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "clip.mp4"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"clip\.mp4") as refused:
        next(frames_of(file))
    assert "\n" not in str(refused.value)


# ---- cameras; no test machine has one, so FFmpeg's test picture takes its place ----------------


def test_a_camera_gives_rgb_frames_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def blue(number: int) -> av.container.InputContainer:
        return av.open("color=blue:size=64x48:rate=10:duration=0.2", format="lavfi")

    monkeypatch.setattr("od_detr.inference.videos._camera", blue)
    frames = list(frames_of_camera(0))
    assert [tuple(frame.pixels.shape) for frame in frames] == [(3, 48, 64)] * 2
    np.testing.assert_allclose(frames[0].pixels.float().mean((1, 2)), [0, 0, 255], atol=2)


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_a_camera_that_is_not_there_is_refused_on_one_line(
    monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(
        InputError, match=r"camera 97: cannot be read \(.+\); connect it"
    ) as refused:
        frames_of_camera(97)
    assert "\n" not in str(refused.value)


def test_a_number_is_a_camera_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_camera("0")
    assert is_camera(1)
    assert not is_camera("a.mp4")
    assert not is_camera(True)
    (tmp_path / "0").mkdir()
    assert not is_camera("0")
