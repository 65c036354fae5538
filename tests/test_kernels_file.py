"""Recorded motions: positions, angles, rates, and the gyroscope logs of a published study."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from blurgen.kernels import draw_kernels, kernel_model
from blurgen.kernels.motion_file import MotionFile
from blurgen.raster import rasterize
from blurgen.rng import stream


@pytest.fixture
def write(tmp_path):
    def text(content, name="motion.csv"):
        path = tmp_path / name
        path.write_text(content)
        return str(path)

    return text


def test_positions_are_the_path(write):
    motion = MotionFile(file=write("# a comment\nx, y\n10,5\n14;5\n14\t2\n"), side_px=3)
    drawn = motion.sample(stream(0))
    assert drawn.path.tolist() == [[0, 0], [4, 0], [4, -3]]
    assert np.array_equal(drawn.kernel, rasterize([(0, 0), (4, 0), (4, -3)], 3)[0])
    assert drawn.params["roll_left_out_deg"] == 0


def test_times_weigh_the_positions(write):
    drawn = MotionFile(file=write("0 0 100\n4 0 101\n4 4 104\n")).sample(stream(0))
    assert drawn.weights.tolist() == [1, 3]
    assert drawn.params["exposure_s"] == 4


def test_a_part_is_cut_exactly(write):
    motion = MotionFile(file=write("0 0 0\n4 0 1\n4 4 2\n"), start_s=0.5, exposure_s=1.25)
    path, weights, params = motion.trajectory(stream(0))
    assert path.tolist() == [[0, 0], [2, 0], [2, 3]]
    assert weights.tolist() == [0.5, 0.75]
    assert (params["start_s"], params["exposure_s"]) == (0.5, 1.25)


def test_a_start_is_drawn_inside_the_file(write):
    motion = MotionFile(file=write("\n".join(f"{t} {t * t} {t / 10}" for t in range(11))), exposure_s=0.25)
    starts = [motion.trajectory(stream(0, i)).params["start_s"] for i in range(300)]
    assert 0 <= min(starts) < 0.02
    assert 0.73 < max(starts) <= 0.75


def test_zoom_scales_the_path(write):
    file = write("0 0\n4 0\n")
    assert MotionFile(file=file, zoom=2.5).path(stream(0)).tolist() == [[0, 0], [10, 0]]


@pytest.mark.parametrize("columns", [3, 4, 7])
def test_rates_are_integrated(write, columns):
    """A yaw of 0.2 rad/s and a pitch growing from 0 at 0.6 rad/s^2, for half a second at a focal length of 100 px."""
    times = np.linspace(5, 5.5, 51)
    pitch, yaw, roll = 0.6 * (times - 5), np.full(51, 0.2), np.full(51, 0.1)
    table = {
        3: [pitch, yaw, times],
        4: [pitch, yaw, roll, times],
        7: [*np.full((3, 51), 9.0), pitch, yaw, roll, times],
    }[columns]
    file = write("\n".join(" ".join(f"{value:.17g}" for value in row) for row in zip(*table, strict=True)))
    drawn = MotionFile(file=file, kind="rates", focal_px=100).trajectory(stream(0))
    assert drawn.path[-1] == pytest.approx([100 * 0.2 * 0.5, 100 * 0.6 * 0.5**2 / 2])
    expected = 0 if columns == 3 else math.degrees(0.05)
    assert drawn.params["roll_left_out_deg"] == pytest.approx(expected)


def test_angles_are_taken_as_they_are(write):
    file = write("0 0 0.5 0\n0.01 0.02 0.6 1\n")
    drawn = MotionFile(file=file, kind="angles", focal_px=1000).trajectory(stream(0))
    assert drawn.path[-1] == pytest.approx([20, 10])
    assert drawn.params["roll_left_out_deg"] == pytest.approx(math.degrees(0.1))


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ("", {}, "must hold numbers, got none"),
        ("x,y\n", {}, "must hold numbers, got none"),
        ("1\n2\n", {}, "at least 2 columns"),
        ("1 2\n", {}, "at least 2 columns and 2 lines"),
        ("1 2\n", {"kind": "rates", "focal_px": 1.0}, "at least 3 columns"),
        ("1 2\n3 4 5\n", {}, "must have 2 numbers, got 3 in line 2"),
        ("1 2\n3 nan\n", {}, "must be finite, got '3 nan' in line 2"),
        ("1 2\n3 inf\n", {}, "must be finite"),
        ("1 2\n3 four\n", {}, "must hold numbers, one position a line; line 2 does not: '3 four'"),
        ("x y\na b\n1 2\n", {}, "line 2 does not: 'a b'"),
        ("1 2\n3 " + 99 * "!", {}, "line 2 does not: '3 !{37}$"),
        ("0 0 1\n1 1 3\n2 2 3\n", {}, "must grow, got 3.0 in row 3"),
        ("0 0 1\n1 1 3\n2 2 2\n", {}, "must grow, got 2.0 in row 3"),
        ("0 0 0 1\n1 1 1 2\n", {}, "focal_px must be given for a file of rates"),
        ("0 0 1\n1 1 3\n", {"kind": "angles"}, "focal_px must be given for a file of angles"),
        ("0 0 1\n1 1 3\n", {"kind": "pixels"}, "kind must be one of auto, positions, angles, rates, got 'pixels'"),
        ("0 0 1\n1 1 3\n", {"exposure_s": 2.5}, "must lie inside the 2 s"),
        ("0 0 1\n1 1 3\n", {"start_s": 1.0, "exposure_s": 1.5}, "must lie inside the 2 s"),
        ("0 0 1\n1 1 3\n", {"start_s": 2.0}, "must lie inside the 2 s"),
        ("0 0 1\n1 1 3\n", {"focal_px": 0.0}, "focal_px must be in"),
    ],
)
def test_motion_file_refuses(write, content, fields, message):
    with pytest.raises(ValueError, match=message):
        MotionFile(file=write(content), **fields)


def test_motion_file_needs_a_readable_file(tmp_path):
    with pytest.raises(ValueError, match="give file=PATH"):
        MotionFile()
    with pytest.raises(ValueError, match="No such file"):
        MotionFile(file=str(tmp_path / "missing.csv"))


def test_a_picture_is_refused_in_printable_words(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 9)
    with pytest.raises(ValueError, match="must hold numbers, one position a line; line 2 does not") as caught:
        MotionFile(file=str(path))
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_a_file_may_be_a_path(write):
    file = Path(write("0 0\n4 0\n"))
    assert kernel_model("file", file=file).path(stream(0)).tolist() == [[0, 0], [4, 0]]


def test_a_changed_file_is_read_again(write):
    MotionFile(file=write("0 0\n1 0\n"))
    file = write("0 0\n7 0\n1 1\n")
    assert MotionFile(file=file).path(stream(0))[1].tolist() == [7, 0]


# the logs of Lai et al. 2016


@pytest.fixture(params=["gyro_01", "gyro_02"])
def log(request, data_root):
    return data_root / "kernels" / "lai2016_gyro" / request.param


def test_gyro_log_is_drawn_over_the_exposure_of_its_info(log):
    drawn = MotionFile(file=str(log), focal_px=1000, side_px=65).sample(stream(0))
    _, exposure_s, delivered_s = np.loadtxt(log / "info.txt")[:3]
    table = np.loadtxt(log / "gyro.txt")
    assert drawn.params["exposure_s"] == exposure_s
    inside = (table[:, -1] > delivered_s - 0.08 - exposure_s) & (table[:, -1] < delivered_s - 0.08)
    moved = 1000 * table[inside][:, [4, 3]].mean(axis=0) * exposure_s
    assert np.allclose(drawn.path[-1], moved, atol=1.0)
    assert drawn.path.shape[0] == inside.sum() + 2
    assert drawn.params["roll_left_out_deg"] > 0.1
    assert 3 < np.ptp(drawn.path, axis=0).max() < 40


def test_a_log_with_an_info_draws_one_exposure_until_exposure_s_is_given(write):
    file = write("\n".join(f"0 {t * t} 0 {t / 10}" for t in range(21)), "gyro.txt")
    write("0 0.3 1.5\n", "info.txt")
    fixed = draw_kernels(kernel_model("file", file=file, focal_px=10), 3)
    assert np.array_equal(fixed[0], fixed[1])
    drawn = draw_kernels(kernel_model("file", file=file, focal_px=10, exposure_s=0.3), 3)
    assert not np.array_equal(drawn[0], drawn[1])


def test_gyro_log_gives_other_exposures_by_chance(log):
    motion = MotionFile(file=str(log / "gyro.txt"), focal_px=1000, exposure_s=0.1)
    starts = {motion.trajectory(stream(0, i)).params["start_s"] for i in range(5)}
    assert len(starts) == 5


def test_columns_4_to_6_of_the_logs_are_the_rates(data_root):
    """What a gyroscope away from the axis of turning feels: acceleration = angular acceleration x lever arm."""
    table = np.loadtxt(data_root / "kernels" / "lai2016_gyro" / "gyro_01" / "gyro.txt")

    def explained(accelerations, rates):
        turning = np.gradient(rates, table[:, -1], axis=0)
        zero = np.zeros(len(table))
        x, y, z = turning.T
        # the rows of the cross product with an unknown arm, for the three axes one below the other
        design = np.concatenate([np.stack(rows, 1) for rows in ((zero, -z, y), (z, zero, -x), (-y, x, zero))])
        felt = (accelerations - accelerations.mean(axis=0)).T.ravel()
        residual = felt - design @ np.linalg.lstsq(design, felt, rcond=None)[0]
        return 1 - residual.var() / felt.var()

    assert explained(table[:, :3], table[:, 3:6]) > 0.5
    assert explained(table[:, 3:6], table[:, :3]) < 0.3


@pytest.mark.parametrize("kind", ["pipe", "device", "without end", "NUL"])
def test_what_is_no_file_of_numbers_is_refused_unread(tmp_path, kind):
    path = tmp_path / "motion.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "without end":
        with open(path, "wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(ValueError, match="file must be"):
        MotionFile(file="a\0b" if kind == "NUL" else str(path)).reach_px()
