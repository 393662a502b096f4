import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from training.data.video_files import (
    neighbours,
    read_frame,
    read_ids,
    read_ids_of_16_bit,
    read_list,
    require_files,
    resize_ids,
)


def save(path: Path, array: NDArray[np.uint8]) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("size", [(7, 11), (18, 32), (5, 8), (72, 90)])
def test_ids_are_resized_as_pil_s_nearest_does(size: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(0, 32, (36, 45), np.uint8)
    by_pil = np.array(Image.fromarray(ids).resize((size[1], size[0]), Image.Resampling.NEAREST))
    assert np.array_equal(resize_ids(ids, size), by_pil)


def test_ids_are_resized_by_hand() -> None:
    assert resize_ids(np.arange(16).reshape(4, 4), (1, 2)).tolist() == [[9, 11]]


def test_frames_are_resized_by_pil_s_bicubic_on_bytes(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    read, file_size = read_frame(save(tmp_path / "frame.png", frame), (8, 12))
    expected = np.array(Image.fromarray(frame).resize((12, 8), Image.Resampling.BICUBIC))
    assert file_size == (20, 30)
    assert torch.equal(read, torch.from_numpy(expected).permute(2, 0, 1) / 255)


def test_cropping_leaves_the_upper_rows_as_they_are(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (76, 16, 3), np.uint8)
    read, file_size = read_frame(save(tmp_path / "frame.png", frame), (64, 16), crop_bottom=120 / 760)
    assert file_size == (76, 16)
    assert torch.equal(read, torch.from_numpy(frame[:64]).permute(2, 0, 1) / 255)


def test_indexed_labels_are_read_without_conversion(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[3, 24]], np.uint8))
    image.putpalette([255 - value // 3 for value in range(768)])
    image.save(tmp_path / "ids.png")
    with Image.open(tmp_path / "ids.png") as written:
        assert written.mode == "P"
    assert read_ids(tmp_path / "ids.png", (1, 2)).tolist() == [[3, 24]]


def test_the_class_of_a_16_bit_label_is_in_its_red_channel(tmp_path: Path) -> None:
    channels = np.zeros((2, 2, 3), np.uint16)
    channels[..., 2], channels[..., 1] = [[1, 2], [3, 300]], 7  # OpenCV: blue, green, red
    cv2.imwrite(str(tmp_path / "ids.png"), channels)
    assert read_ids_of_16_bit(tmp_path / "ids.png", (2, 2)).tolist() == [[1, 2], [3, 300]]


def test_lists_may_have_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "val.txt"
    path.write_bytes(b"006/006_00110.jpg\r\n006/006_00190.jpg\r\n\r\n")
    assert read_list(path) == ["006/006_00110.jpg", "006/006_00190.jpg"]


def test_a_list_need_not_end_with_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("000001.png\n000849.png", encoding="utf-8")
    assert read_list(path) == ["000001.png", "000849.png"]


@pytest.mark.parametrize(
    ("name", "num_frames", "expected"),
    [
        ("006_00110.jpg", 2, ["006_00109.jpg", "006_00110.jpg"]),
        ("000001.png", 2, ["000000.png", "000001.png"]),
        (
            "frankfurt_000000_001016",
            3,
            ["frankfurt_000000_001014", "frankfurt_000000_001015", "frankfurt_000000_001016"],
        ),
        ("001_00010.jpg", 1, ["001_00010.jpg"]),
    ],
)
def test_neighbours_count_down_the_last_number(name: str, num_frames: int, expected: list[str]) -> None:
    assert [path.name for path in neighbours(Path("folder") / name, num_frames)] == expected


def test_a_first_frame_has_no_neighbour() -> None:
    with pytest.raises(ValueError, match=r"000000\.png has no 1 frames before it: leave it out of the list"):
        neighbours(Path("000000.png"), 2)


def test_a_frame_without_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no frame number"):
        neighbours(Path("frame.png"), 2)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.png is missing: copy it"):
        require_files([tmp_path / "missing.png"], "copy it")


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "frame.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"frame\.png cannot be read: it is damaged"):
        read_frame(path, (16, 16))
    path.write_bytes(b"no image")
    for read in (read_ids, read_ids_of_16_bit):
        with pytest.raises(ValueError, match=r"frame\.png cannot be read"):
            read(path, (64, 64))


def test_labels_of_another_size_than_their_frame_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "ids.png", np.zeros((4, 8), np.uint8))
    with pytest.raises(ValueError, match=r"ids\.png is 8x4, its frame is 16x8"):
        read_ids(path, (8, 16))


def test_coloured_labels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "ids.png", np.zeros((4, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="not of 8-bit ids"):
        read_ids(path, (4, 8))
    with pytest.raises(ValueError, match="not a 16-bit colour image"):
        read_ids_of_16_bit(path, (4, 8))


def test_lists_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_list(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is empty"):
        read_list(tmp_path / "empty.txt")


def test_an_image_that_claims_billions_of_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    path = save(tmp_path / "frame_1.png", np.zeros((4, 4), np.uint8))
    encoded = bytearray(path.read_bytes())
    encoded[16:24] = struct.pack(">II", 90_000, 90_000)
    encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
    path.write_bytes(encoded)
    with pytest.raises(ValueError, match=r"frame_1\.png claims more pixels than any frame has"):
        read_frame(path, (32, 64))


@pytest.mark.parametrize(("folder", "sentence"), [("x" * 300, "cannot be read .*too long"), ("a\0b", "is missing")])
def test_a_list_may_name_what_no_file_can_be_called(folder: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        require_files([tmp_path / folder / "frame_1.png"], "copy it there")
    with pytest.raises(ValueError, match="is missing"):
        read_frame(tmp_path / folder / "frame_1.png", (32, 64))
