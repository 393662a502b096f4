import io
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.overlay import MAX_LEGEND, Palette, draw_note, draw_overlay, make_palette, render_overlay

HEIGHT, WIDTH = 240, 320
LEGEND = (slice(0, HEIGHT), slice(0, WIDTH // 2))  # where names are written at most


@pytest.fixture
def palette() -> Palette:
    return make_palette([("road", (200, 100, 0)), ("sky", (0, 100, 200)), ("car", (255, 255, 255))])


def gray_frame() -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), 100, np.uint8)


def all_of(label: int) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH), label, np.uint8)


def without_legend(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, WIDTH // 2 :]


def test_a_palette_is_black_beyond_the_last_class(palette: Palette) -> None:
    assert palette.names == ("road", "sky", "car")
    assert palette.colors[:3].tolist() == [[200, 100, 0], [0, 100, 200], [255, 255, 255]]
    assert palette.colors.shape == (256, 3)
    assert not palette.colors[3:].any()


def test_a_frame_is_tinted_by_half_with_the_colour_of_its_labels(palette: Palette) -> None:
    labels = all_of(0)
    labels[HEIGHT // 2 :] = 1
    drawn = without_legend(draw_overlay(gray_frame(), labels, palette))
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn[: HEIGHT // 2], np.full_like(drawn[: HEIGHT // 2], (150, 100, 50)))
    assert np.array_equal(drawn[HEIGHT // 2 :], np.full_like(drawn[HEIGHT // 2 :], (50, 100, 150)))


def test_the_frame_and_the_labels_are_left_alone(palette: Palette) -> None:
    frame, labels = gray_frame(), all_of(1)
    draw_overlay(frame, labels, palette)
    assert np.array_equal(frame, gray_frame())
    assert np.array_equal(labels, all_of(1))


def test_the_legend_shows_the_colours_of_the_classes_that_are_seen(palette: Palette) -> None:
    labels = all_of(2)
    labels[: HEIGHT // 4] = 0
    drawn = draw_overlay(gray_frame(), labels, palette)
    line = 12  # pixels, the least
    swatches = [drawn[line // 2 + row * line + 1, line // 2 + 1].tolist() for row in range(2)]
    assert swatches == [[255, 255, 255], [200, 100, 0]]  # largest first


def test_a_label_without_a_class_is_darkened_and_not_named(palette: Palette) -> None:
    drawn = draw_overlay(gray_frame(), all_of(255), palette)
    assert np.array_equal(drawn, np.full_like(drawn, 50))


def test_a_class_of_very_few_pixels_is_not_named(palette: Palette) -> None:
    labels = all_of(255)
    labels[-1, -1] = 0
    drawn = draw_overlay(gray_frame(), labels, palette)
    assert np.array_equal(drawn[LEGEND], np.full_like(drawn[LEGEND], 50))


def test_the_legend_has_a_bound() -> None:
    palette = make_palette([(f"class {index}", (0, 0, 0)) for index in range(40)])
    labels = np.repeat(np.arange(40, dtype=np.uint8), HEIGHT * WIDTH // 40).reshape(HEIGHT, WIDTH)
    drawn = draw_overlay(gray_frame(), labels, palette)
    below = drawn[6 + (MAX_LEGEND + 1) * 12 :]
    assert np.array_equal(below, np.full_like(below, 50))


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (720, 1280)])
def test_any_size_can_be_drawn_on(palette: Palette, size: tuple[int, int]) -> None:
    drawn = draw_overlay(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8), palette)
    assert drawn.shape == (*size, 3)


def test_a_note_is_written_on_a_copy() -> None:
    frame = gray_frame()
    noted = draw_note(frame, "dropped")
    assert np.array_equal(frame, gray_frame())
    assert (noted != frame).any()
    assert noted.min() < 50 < 200 < noted.max()  # light with a dark rim
    below = noted[HEIGHT // 4 :]
    assert np.array_equal(below, np.full_like(below, 100))


@pytest.mark.parametrize(("file_type", "tolerance"), [("jpeg", 1), ("png", 0)])
def test_an_overlay_is_a_file_that_any_program_can_read(
    palette: Palette, file_type: Literal["jpeg", "png"], tolerance: int
) -> None:
    labels = all_of(0)
    labels[HEIGHT // 2 :] = 1
    image = Image.open(io.BytesIO(render_overlay(gray_frame(), labels, palette, file_type)))
    assert (image.format, image.mode) == (file_type.upper(), "RGB")
    drawn = draw_overlay(gray_frame(), labels, palette)
    assert np.abs(without_legend(np.asarray(image)).astype(int) - without_legend(drawn)).mean() <= tolerance
