"""Paths made to harm: names of output and source, lists and tables that lead elsewhere, and all awkward files."""

import os
import shutil

import pytest
import surroundings
from click.testing import CliRunner
from photos import write_photos
from test_decode import NOT_IMAGES, REASONS
from trees import plant

from blurgen.cli import main
from blurgen.make_options import MakeOptions, RunOptions
from blurgen.options import Chosen
from blurgen.pipeline import make
from blurgen.plan import make_plan
from blurgen.recipes import load_recipe, open_source
from blurgen.shards import open_shards, verify
from blurgen.sources import BadImage
from blurgen.sources.folder import FolderSource

SMALL = (*surroundings.SMALL, "--quiet")
NAMES = {
    "dash": "-x",
    "option": "--out",
    "line break": "a\nb",
    "spaces": " a  b ",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "shell": "a'b\"c$(x)`y`;z",
    "wildcards": "*[x]?",
    "template": "%s{0}\\",
    "home": "~",
    "divider": "a!b",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("paths") / "photos", 2)


QUICK = ("not UTF-8",)


@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(k, marks=pytest.mark.slow) for k in NAMES if k not in QUICK)])
def test_hard_name_of_source_and_output_works_in_every_command(photos, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    name, run = NAMES[kind], CliRunner().invoke
    shutil.copytree(photos, name)
    for words in (
        ("make", f"--src={name}", *SMALL, f"--out={name}.h5"),
        ("verify", "--", f"{name}.h5"),
        ("info", "--", f"{name}.h5"),
        ("make", f"--src={name}", *SMALL, f"--out={name}.m.h5", "--sharded"),
        ("verify", "--", f"{name}.m.h5"),
    ):
        done = run(main, words)
        assert done.exit_code == 0, (words, done.output)
    expected = {name, *(f"{name}{suffix}" for suffix in (".h5", ".h5.toml", ".m.h5", ".m.h5.d", ".m.h5.toml"))}
    assert set(os.listdir()) == expected
    assert open_shards(f"{name}.m.h5")[1].key == "photo01.jpg"


def test_table_of_groups_with_any_bytes_gives_keys(tmp_path):
    plant(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    lines = [b"1.png caf\xe9", b"2.png " + b"g" * 900, b"3.png a\x00b", b"4.png x!y%z"]
    (tmp_path / "groups.txt").write_bytes(b"\n".join(lines))
    source = FolderSource(str(tmp_path), group_file="groups.txt")
    groups = {entry.key: entry.group for entry in source.entries()}
    assert groups["1.png"] == "caf%E9"
    assert groups["3.png"] == "a%00b"
    assert groups["4.png"] == "x%21y%25z"
    assert len(groups["2.png"]) == 512
    options = MakeOptions(
        source=Chosen(str(tmp_path)), crop=4, kernel=Chosen("linear", {"length_px": 1.0, "side_px": 3})
    )
    plan = make_plan(options)
    assert make(plan, tmp_path / "a.h5", RunOptions(workers=1, backend="threading")).done == 4


def test_group_of_nested_groups_still_fits_its_field(tmp_path):
    folder = "d" * 200
    plant(tmp_path, [f"{folder}/{'e' * 100}.png"])
    source = FolderSource(str(tmp_path), group="(((d+)/e+).png)")
    assert [len(entry.group) for entry in source.entries()] == [512]


@pytest.mark.parametrize("table", ["../secret.txt", "link.txt", "{outside}"])
def test_table_that_lies_elsewhere_is_refused(tmp_path, table):
    root, secret = tmp_path / "root", tmp_path / "secret.txt"
    plant(root, ["1.png"])
    secret.write_text("1.png secret\n")
    (root / "link.txt").symlink_to(secret)
    with pytest.raises(ValueError, match="must lie below"):
        FolderSource(str(root), group_file=table.format(outside=secret)).entries()
    with pytest.raises(ValueError, match="must lie below"):
        FolderSource(str(root), split_table=table.format(outside=secret)).entries()


def test_table_of_splits_with_absurd_names_is_refused(tmp_path):
    plant(tmp_path, ["1.png"])
    (tmp_path / "splits.txt").write_text("1.png a-long-name-of-a-split\n")
    with pytest.raises(ValueError, match=r"a split in splits\.txt must have at most 16 bytes"):
        FolderSource(str(tmp_path), split_table="splits.txt").entries()
    (tmp_path / "splits.txt").write_bytes(b"1.png \xff\n")
    assert [entry.split for entry in FolderSource(str(tmp_path), split_table="splits.txt").entries()] == ["%FF"]


@pytest.mark.parametrize("name", ["list.txt", "mine.toml", "photo.jpg", "z.zip", "z.tar"])
def test_pipe_and_endless_device_are_no_source(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises((ValueError, OSError, BadImage)):
        open_source(str(tmp_path / name)).read(name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises((ValueError, OSError, BadImage)):
        open_source(str(tmp_path / name)).read(name)


def test_list_that_is_no_file_or_without_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(ValueError, match="a list must be a file"):
        FolderSource(str(tmp_path), listing=str(tmp_path / "list.txt")).entries()
    with open(tmp_path / "long.txt", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="a list must have at most"):
        FolderSource(str(tmp_path), listing=str(tmp_path / "long.txt")).entries()


def test_recipe_without_end_is_refused(tmp_path):
    with open(tmp_path / "mine.toml", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="must be a TOML file of at most"):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize("name", ["a\0b.png", "\0", "x" * 300 + ".png", "a/" * 200 + "b.png"])
def test_key_that_no_file_can_have_is_refused(tmp_path, name):
    plant(tmp_path, ["a.png"])
    (tmp_path / "list.txt").write_text(name + "\n")
    source = FolderSource(str(tmp_path), listing=str(tmp_path / "list.txt"))
    for entry in source.entries():
        for read in (source.read, source.size):
            with pytest.raises(BadImage):
                read(entry.key)


@pytest.mark.slow
def test_everything_awkward_makes_shards_or_is_named(data_root, tmp_path):
    root = data_root / "awkward"
    kernel = Chosen("linear", {"length_px": 3.0, "side_px": 3})
    plan = make_plan(MakeOptions(source=Chosen(str(root)), crop=16, kernel=kernel))
    progress = make(plan, tmp_path / "a.h5", RunOptions(workers=1, backend="threading"))
    bad = {entry.key: entry.reason for entry in progress.bad}
    small = {key for key, reason in bad.items() if reason == "too-small"}
    listed = {entry.key for entry in plan.entries}
    expected = {name: reason for name, reason in REASONS.items() if name in listed}
    assert {key: reason for key, reason in bad.items() if key not in small} == expected | {
        key: "not-a-file" for key in listed if (root / key).is_dir()
    }
    assert verify(tmp_path / "a.h5") == []
    assert {sample.key for sample in open_shards(tmp_path / "a.h5")} == listed - set(bad)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files - listed <= {name for name in files if name.rpartition("/")[2] in NOT_IMAGES or name.startswith(".")}
