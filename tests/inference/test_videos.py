"""Videos are read frame by frame."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from od_detr.errors import InputError
from od_detr.inference.videos import frames_of, is_video


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
    assert [tuple(frame.shape) for frame in frames] == [(3, 32, 48)] * 5
    levels = [float(frame.float().mean()) for frame in frames]
    np.testing.assert_allclose(levels, range(0, 250, 50), atol=4)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100, None])
def test_what_is_no_video_is_refused_on_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "clip.mp4"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"clip\.mp4") as refused:
        next(frames_of(file))
    assert "\n" not in str(refused.value)
