"""`trainers deblur`: which files, under which names, with what depth, alpha and orientation, and what of bad ones."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePath

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from pictures import encode, scene, swapped_profile
from PIL import Image, ImageOps
from restorers import photograph
from test_decode import REASONS, awkward_files

from blurgen.sources.full_depth import Pixels, decode_full_depth
from trainers import photographs
from trainers.cli import main
from trainers.infer import deblur_image
from trainers.models import method_class
from trainers.pictures import encode_png, find_inputs, name_outputs
from trainers.weights import load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return files of small weights by the name of their system."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name in ("disentangled", "cyclegan"):
        system = method_class(name)
        files[name] = folder / f"{name}.safetensors"
        save_weights(files[name], system(system.Config(width=4)), {})
    return files


def deblur(*arguments, code=0):
    result = CliRunner().invoke(main, ["deblur", *map(str, arguments), "--device", "cpu"])
    assert result.exit_code == code, result.output
    return result


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def stored(path):
    """Return what Pillow and OpenCV find in a PNG: the pixels as they are, and its tags."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED), Image.open(path).info


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "b/a.jpg"], ["a", "b/a"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["A.jpg", "a.JPG"], ["A.jpg", "a.JPG-2"]),
        (["a.jpg", "a.png", "a.jpg.gif"], ["a.jpg", "a.png", "a.jpg-2"]),
        (["x.jpg", "x.jpg", "x.jpg"], ["x.jpg", "x.jpg-2", "x.jpg-3"]),
        (["a.png/b.jpg", "a.jpg"], ["a.png/b", "a-2"]),
        (["v1.2", "photo.raw"], ["v1.2", "photo.raw"]),
        ([".jpg"], [".jpg"]),
    ],
)
def test_names_of_results_differ(names, expected):
    assert list(map(str, name_outputs(list(map(PurePath, names))))) == expected


def test_folders_are_searched_for_images(tmp_path):
    for name in ("b.jpg", "a/c.PNG", "a/notes.txt", ".hidden/d.jpg", "out/e.png", "a/.f.jpg", "folder.png/g.jpg"):
        write(tmp_path / name, b"")
    found = find_inputs([tmp_path, tmp_path / "a/notes.txt", tmp_path / "b.jpg"], tmp_path / "out")
    assert [str(one.name) for one in found] == ["b.jpg", "a/c.PNG", "folder.png/g.jpg", "notes.txt"]
    assert all(one.path.is_file() for one in found)
    with pytest.raises(ValueError, match="is the folder of the inputs: name another one"):
        find_inputs([tmp_path], tmp_path / "out" / "..")
    (tmp_path / ".hidden/nothing").mkdir()
    with pytest.raises(ValueError, match=r"there are no images in .*\.hidden/nothing"):
        find_inputs([tmp_path / ".hidden/nothing"], tmp_path / "out")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("profile", [None, swapped_profile()], ids=["srgb", "profile"])
def test_png_holds_what_is_given(tmp_path, dtype, with_alpha, profile):
    colors, alpha = photograph(20, 30, dtype), photograph(20, 30, dtype)[..., 1]
    path = write(tmp_path / "a.png", encode_png(Pixels(colors, alpha if with_alpha else None, profile)))
    pixels, info = stored(path)
    assert np.array_equal(pixels[..., 2::-1], colors)
    assert pixels.shape[2] == 3 + with_alpha
    assert not with_alpha or np.array_equal(pixels[..., 3], alpha)
    assert info.get("icc_profile") == profile


def test_result_is_the_librarys_with_alpha_untouched(weights, tmp_path):
    deep = photograph(70, 90, np.uint16, channels=4)
    write(tmp_path / "in/sub/deep.png", cv2.imencode(".png", deep[..., [2, 1, 0, 3]])[1].tobytes())
    write(tmp_path / "in/shallow.tif", encode(photograph(70, 90, channels=4), "TIFF"))
    result = deblur(weights["disentangled"], tmp_path / "in", "--out", tmp_path / "out")
    assert result.stdout.splitlines() == [str(tmp_path / "out/shallow.png"), str(tmp_path / "out/sub/deep.png")]
    restorer = load_weights(weights["disentangled"])
    for name, given in (("sub/deep", deep), ("shallow", photograph(70, 90, channels=4))):
        pixels, _ = stored(tmp_path / f"out/{name}.png")
        assert pixels.dtype == given.dtype
        assert np.array_equal(pixels[..., [2, 1, 0, 3]], deblur_image(restorer, given, device="cpu"))
        assert np.array_equal(pixels[..., 3], given[..., 3])


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_result_is_upright_without_a_stale_tag(weights, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(scene(), "JPEG", exif=exif, quality=95)
    write(tmp_path / "a.jpg", data)
    deblur(weights["cyclegan"], tmp_path / "a.jpg", "--out", tmp_path / "out")
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels, info = stored(tmp_path / "out/a.png")
    assert np.array_equal(pixels[..., ::-1], deblur_image(weights["cyclegan"], upright, device="cpu"))
    assert "exif" not in info
    assert not Image.open(tmp_path / "out/a.png").getexif()


def test_gray_comes_out_as_rgb(weights, tmp_path):
    write(tmp_path / "a.png", encode(scene()[..., 0], "PNG"))
    deblur(weights["cyclegan"], tmp_path / "a.png", "--out", tmp_path / "out")
    expected = deblur_image(weights["cyclegan"], scene()[..., 0], device="cpu")
    assert np.array_equal(stored(tmp_path / "out/a.png")[0][..., ::-1], expected)


def test_bad_inputs_are_named_and_the_others_go_on(weights, tmp_path):
    write(tmp_path / "in/a.jpg", encode(scene(), "JPEG")[:500])
    write(tmp_path / "in/b.png", encode(scene(), "PNG"))
    write(tmp_path / "in/c.png", b"")
    arguments = (weights["cyclegan"], tmp_path / "in", tmp_path / "none.jpg", "--quiet")
    result = deblur(*arguments, "--out", tmp_path / "out", code=3)
    assert result.stdout == f"{tmp_path / 'out/b.png'}\n"
    assert result.stderr.splitlines() == [
        f"{tmp_path / 'in/a.jpg'} is left out: the JPEG stops within its header",
        f"{tmp_path / 'in/c.png'} is left out: the file is empty",
        f"{tmp_path / 'none.jpg'} is left out: there is no such file",
    ]
    told = json.loads(deblur(*arguments, "--out", tmp_path / "again", "--json", code=3).stdout)
    assert told["written"] == [str(tmp_path / "again/b.png")]
    assert [bad["reason"] for bad in told["left_out"]] == ["truncated", "empty", "vanished"]
    deblur(weights["cyclegan"], tmp_path / "in/c.png", "--out", tmp_path / "out", code=1)


def test_results_that_are_there_stay_unless_overwritten(weights, tmp_path):
    write(tmp_path / "in/a.png", encode(scene(), "PNG"))
    kept = write(tmp_path / "out/a.png", b"something else")
    arguments = (weights["cyclegan"], tmp_path / "in", "--out", tmp_path / "out")
    result = deblur(*arguments)
    assert result.stdout == ""
    assert "results that were there already: 1; --overwrite makes them anew" in result.stderr
    assert kept.read_bytes() == b"something else"
    assert deblur(*arguments, "--overwrite").stdout == f"{kept}\n"
    assert decode_full_depth(kept.read_bytes()).colors.shape == (40, 56, 3)


def test_inputs_are_never_overwritten(weights, tmp_path):
    data = encode(scene(), "PNG")
    write(tmp_path / "in/a.png", data)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for given, out in (("in", "in"), ("in", "link"), ("link", "in")):
        arguments = (weights["cyclegan"], tmp_path / given / "a.png", "--out", tmp_path / out, "--overwrite")
        message = deblur(*arguments, code=1).stderr
        assert "a.png is an input and would be overwritten: name another folder with --out" in message
    assert (tmp_path / "in/a.png").read_bytes() == data


@pytest.mark.slow
def test_codes_are_drawn_by_seed_and_image(weights, tmp_path):
    data = encode(scene(), "PNG")
    for name in ("in/a.png", "in/same.png"):
        write(tmp_path / name, data)
    write(tmp_path / "in/other.png", encode(scene()[::-1], "PNG"))

    def run(out, *more):
        deblur(weights["disentangled"], tmp_path / "in", "--out", tmp_path / out, *more)
        return {path.name: path.read_bytes() for path in sorted((tmp_path / out).iterdir())}

    three = run("three", "--z-samples", 3)
    assert list(three) == [f"{name}_z{number}.png" for name in ("a", "other", "same") for number in range(3)]
    assert len({three[f"a_z{number}.png"] for number in range(3)}) == 3
    for number in range(3):
        assert three[f"a_z{number}.png"] == three[f"same_z{number}.png"]
    two = run("two", "--z-samples", 2)
    assert two == {name: three[name] for name in two}
    assert run("seed", "--z-samples", 1, "--seed", 1)["a_z0.png"] != three["a_z0.png"]
    assert run("mean") == run("again")
    message = deblur(weights["cyclegan"], tmp_path / "in", "--out", tmp_path / "no", "--z-samples", 1, code=1).stderr
    assert "--z-samples draws codes of the blur, and cyclegan has none" in message


def test_codes_differ_between_images(weights, tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / f"in/{number}.png", encode(scene()[number:], "PNG"))
    seen = []
    monkeypatch.setattr(photographs, "deblur_colors", lambda _, colors, means, code, *more: seen.append(code) or colors)
    deblur(weights["disentangled"], tmp_path / "in", "--out", tmp_path / "out", "--z-samples", 2)
    codes = np.concatenate(seen)
    assert codes.shape == (6, 8)
    assert len(np.unique(codes)) == 48


def test_profile_of_deep_colors_goes_along(weights, tmp_path):
    colors, profile = photograph(20, 30, np.uint16), swapped_profile()
    write(tmp_path / "a.png", encode_png(Pixels(colors, None, profile)))
    deblur(weights["cyclegan"], tmp_path / "a.png", "--out", tmp_path / "out")
    assert stored(tmp_path / "out/a.png")[1]["icc_profile"] == profile


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ([], "--out is missing", 2),
        (["--out", "o", "--z-samples", "0"], "z_samples must be 1 to 1,000, got 0", 2),
        (["--out", "o", "--memory-gib", "-1"], "memory_gib must be above 0", 2),
        (["--out", "o", "--tiles", "some"], "is not one of", 2),
        (["--out", "o", "--precision", "tf32"], "tf32 is arithmetic of a GPU", 1),
    ],
)
def test_wrong_usage_is_one_sentence(weights, tmp_path, monkeypatch, arguments, words, code):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.png", encode(scene(), "PNG"))
    message = deblur(weights["cyclegan"], "a.png", *arguments, code=code).stderr
    assert words in message
    assert "Traceback" not in message


def test_missing_weights_are_one_sentence(tmp_path):
    write(tmp_path / "a.png", encode(scene(), "PNG"))
    message = deblur(tmp_path, tmp_path / "a.png", "--out", tmp_path / "out", code=1).stderr
    assert "holds no best.safetensors and no last.safetensors" in message


def test_names_that_are_no_text_go_through(weights, tmp_path):
    name = os.fsdecode(b"caf\xe9 \xff.png")
    write(tmp_path / "in" / name, encode(scene(), "PNG"))
    result = deblur(weights["cyclegan"], tmp_path / "in", "--out", tmp_path / "out")
    assert result.stdout_bytes == os.fsencode(tmp_path / "out" / name) + b"\n"
    assert (tmp_path / "out" / name).is_file()
    told = deblur(weights["cyclegan"], tmp_path / "in", "--out", tmp_path / "out", "--json").stdout
    assert json.loads(told)["kept"][0].endswith("caf\ufffd \ufffd.png")


@pytest.mark.slow
def test_stopped_run_continues(weights, tmp_path):
    for number in range(40):
        write(tmp_path / f"in/{number:02d}.png", encode(photograph(200, 300 + number), "PNG"))
    command = [sys.executable, "-m", "trainers", "deblur", str(weights["cyclegan"]), str(tmp_path / "in")]
    command += ["--out", str(tmp_path / "out"), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out").is_dir() or len(list((tmp_path / "out").iterdir())) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "the same command continues" in process.communicate()[1]
    assert process.returncode == 130
    done = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert 0 < len(done) < 40
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix != ".png"]
    subprocess.run(command, check=True, capture_output=True)
    assert len(list((tmp_path / "out").iterdir())) == 40
    assert all(path.read_bytes() == data for path, data in done.items())


@pytest.mark.slow
def test_awkward_files_come_out_or_are_named(weights, data_root, tmp_path):
    """Small ones only: what a file holds is the matter of other tests."""
    files = {
        name: path for name, path in awkward_files(data_root).items() if name in REASONS or path.stat().st_size < 10_000
    }
    arguments = (weights["cyclegan"], *files.values(), "--out", tmp_path / "out", "--json", "--quiet")
    told = json.loads(deblur(*arguments, code=3).stdout)
    left_out = {str(Path(bad["input"]).relative_to(data_root / "awkward")): bad["reason"] for bad in told["left_out"]}
    assert left_out == {name: reason for name, reason in REASONS.items() if name in files}
    good = [name for name in files if name not in REASONS]
    assert len(good) > 15
    for name, written in zip(good, told["written"], strict=True):
        given, made = decode_full_depth(files[name].read_bytes()), decode_full_depth(Path(written).read_bytes())
        assert made.colors.shape == given.colors.shape, name
        assert made.colors.dtype == given.colors.dtype, name
        assert (made.alpha is None) == (given.alpha is None), name
        assert given.alpha is None or np.array_equal(made.alpha, given.alpha), name


def test_blurred_photographs_come_out(weights, data_root, tmp_path):
    first = sorted((data_root / "gopro/pairs/blur").iterdir())[0]
    results = []
    for mode in ("whole", "exact"):
        arguments = (weights["disentangled"], first, "--out", tmp_path / mode, "--tiles", mode, "--memory-gib", 1)
        told = deblur(*arguments).stderr
        assert ("is computed in bands of rows, with up to 0.05 GiB in memory" in told) == (mode == "exact")
        assert told.count("1/1 images") == 1
        results.append(stored(tmp_path / mode / f"{first.stem}.png")[0].astype(int))
    assert results[0].shape == (720, 1280, 3)
    assert np.abs(results[0] - results[1]).max() <= 1
