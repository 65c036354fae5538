"""Contact sheets and plots."""

import numpy as np
import pytest

from blurgen.preview import extent_histogram, extent_px, kernel_sheet, kernel_tile, sample_sheet, stack, write_png


def test_sheet_shows_every_kernel_dark_on_white():
    kernels = np.zeros((5, 9, 9), np.float32)
    kernels[:, 4, 2:7] = 0.2
    sheet = kernel_sheet(kernels, columns=3, tile_px=9)
    assert sheet.shape == (2 * 13 + 4, 3 * 13 + 4)
    assert (sheet == 0).sum() == 5 * 5


def test_faint_parts_of_a_kernel_are_seen():
    kernel = np.zeros((3, 3))
    kernel[0, 0], kernel[2, 2] = 0.04, 1.0
    assert kernel_tile(kernel, 3)[0, 0] == 255 - round(255 * 0.2)


def test_sample_sheet_has_a_row_for_each_sample():
    image = np.full((32, 32, 3), 100, np.uint8)
    sheet = sample_sheet([[image, image, np.eye(7) / 7]] * 2, tile_px=32)
    assert sheet.shape == (2 * 36 + 4, 3 * 36 + 4, 3)
    assert (sheet[4:36, 4:36] == 100).all()
    assert sheet[4:36, 76:].min() == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (2, 9)])
def test_extent_is_the_longer_side_of_what_is_visible(height, width):
    kernel = np.full((21, 21), 1e-5)
    kernel[3 : 3 + height, 4 : 4 + width] = 1
    assert extent_px(kernel) == max(height, width)


def test_histogram_counts_every_kernel():
    few, more = (extent_histogram(extents, 400) for extents in ([3, 3, 99], [3, 99, 99, 99]))
    assert few.shape == (220, 400, 3)
    # The bar of the largest extent is at the right, and dark.
    dark = [(plot[40:170, 300:380] < 120).sum() for plot in (few, more)]
    assert dark[1] > 1.5 * dark[0] > 0


def test_pictures_stack_to_the_widest():
    tall = stack(np.zeros((5, 10, 3), np.uint8), np.zeros((5, 20, 3), np.uint8))
    assert tall.shape[1] == 20
    assert (tall[:5, 10:] == 255).all()


def test_png_reads_back_in_rgb(tmp_path):
    import cv2

    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 200
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], image)
