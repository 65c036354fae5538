"""Recipes find what they should in the layouts of real datasets, and open_source takes every kind of name."""

import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile

import cv2
import numpy as np
import pytest
from trees import TREES, plant

from blurgen.recipes import list_sources, load_recipe, open_source, recipe_paths
from blurgen.shards.layout import SOURCE

NAMES = sorted(set(recipe_paths()) - {"folder"})
PAIRED = [tree for tree in TREES if tree.blurred]
MINIMAL = 'title = "T"\nlicence = "L"\nobtain = "O"\n[[layout]]\nname = "a"\nsplits.train = ["x/*.png"]\n'


def tree_id(tree):
    return f"{tree.recipe}-{tree.layout}"


@pytest.fixture
def recipe_file(tmp_path):
    """Return a function that writes a recipe, changed by one replacement, and gives its path."""

    def write(old="", new=""):
        assert old in MINIMAL
        path = tmp_path / "mine.toml"
        path.write_text(MINIMAL.replace(old, new, 1) if old else MINIMAL + new)
        return path

    return write


@pytest.mark.parametrize("tree", TREES, ids=tree_id)
def test_recipe_finds_the_sharp_images_with_split_and_group(tree, tmp_path):
    entries = open_source(tree.recipe, tree.plant(tmp_path), settings={"layout": tree.layout}).entries()
    found = {entry.key: (entry.split, entry.group) for entry in entries}
    assert found == {path: (split, group or path) for path, (split, group) in tree.sharp.items()}


@pytest.mark.parametrize("tree", [tree for tree in TREES if tree.layout != "gamma"], ids=tree_id)
def test_recipe_recognises_its_layout_unasked(tree, tmp_path):
    assert len(open_source(tree.recipe, tree.plant(tmp_path)).entries()) == len(tree.sharp)


@pytest.mark.parametrize("tree", PAIRED, ids=tree_id)
def test_recipe_pairs_blurred_with_sharp(tree, tmp_path):
    source = open_source(tree.recipe, tree.plant(tmp_path), settings={"layout": tree.layout}, real=True)
    assert source.sides == "both"
    entries = source.entries()
    assert {entry.key: (entry.split, entry.group) for entry in entries} == {
        path: tree.sharp[partner] for path, partner in tree.blurred.items()
    }
    for path, partner in tree.blurred.items():
        picture = source.read(path)
        assert np.array_equal(picture.blurred, cv2.imread(str(tmp_path / path)))
        assert np.array_equal(picture.sharp, cv2.imread(str(tmp_path / partner)))


@pytest.mark.parametrize("tree", TREES, ids=tree_id)
def test_one_split_is_that_split_alone(tree, tmp_path):
    tree.plant(tmp_path)
    for split in {split for split, _ in tree.sharp.values()} - {""}:
        source = open_source(tree.recipe, tmp_path, (split,), {"layout": tree.layout})
        assert {entry.split for entry in source.entries()} == {split}
    with pytest.raises(ValueError, match=f"{tree.recipe} has no split 'trainig'"):
        open_source(tree.recipe, tmp_path, ("trainig",), {"layout": tree.layout})


def test_every_recipe_has_a_tree():
    layouts = {(name, layout.name) for name in NAMES for layout in load_recipe(name).layout}
    assert layouts == {(tree.recipe, tree.layout) for tree in TREES}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipe_says_whose_data_it_is_within_the_fields_of_a_shard(name):
    recipe = load_recipe(name)
    for key in ("title", "homepage", "author", "citation", "licence", "obtain"):
        assert getattr(recipe, key).strip(), key
    assert re.search(r"@\w+\{", recipe.citation)
    assert recipe.spdx in ("", "CC-BY-4.0", "CC-BY-NC-SA-3.0")
    assert len(recipe.terms.encode("ascii")) <= SOURCE["licence"].itemsize
    assert len(recipe.author.encode("ascii")) <= SOURCE["author"].itemsize
    for layout in recipe.layout:
        assert all(len(split) <= SOURCE["split"].itemsize for split in layout.split_names)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title =", "titel =", "there is no key 'titel', did you mean 'title'"),
        ("splits.train", "split.train", r"\[\[layout\]\]: there is no key 'split', did you mean 'splits'"),
        ('title = "T"\n', "", "the key 'title' is missing"),
        ('"T"', "3", "title must be a word, got 3"),
        ('["x/*.png"]', "[1]", "splits must be"),
        ("[[layout]]", "[layout]", r"at least one table \[\[layout\]\]"),
        ('splits.train = ["x/*.png"]', "", "must have splits, blurred, or both"),
        ("", 'homepage = "x"', r"there is no key 'homepage'"),
        ('obtain = "O"', 'obtain = "O"\nhomepage = "ftp://x"', "homepage must be an address"),
        ("", "group = '('\n", "group must be a regular expression"),
        ("", "labels.'(' = ['x']\n", "labels must be a regular expression"),
        (
            "",
            r"labels.'(a)b' = ['\1', 'l/\2.png']",
            r"labels has a path .* that its rule '\(a\)b' cannot fill: invalid group",
        ),
        ("", r"labels.'(a)b' = ['\g<name>']", "cannot fill: unknown group name 'name'"),
        ("", "counts = { trian = 3 }\n", "counts has a split 'trian' that no glob has: did you mean 'train'"),
        ("", '[[layout]]\nname = "a"\nsplits.b = ["*"]\n', "layouts must have names of their own, got a, a"),
        ('"T"', "T", "is no valid TOML file"),
        ('"T"', "[" * 3000, "is no valid TOML file: it is nested too deeply"),
        ('"T"', "9" * 5000, "is no valid TOML file"),
        ("", "x" * (1 << 20), "must be a TOML file of at most 1,048,576 bytes"),
        ('"L"', f'"{"L" * 129}"', "the licence must have at most 128 bytes and no NUL, got 129 bytes: 'LLL"),
        ('"L"', r'"L\u0000"', "the licence must have at most 128 bytes and no NUL"),
        ("splits.train", "splits.a-long-name-of-a-split", "a split must have at most 16 bytes"),
    ],
)
def test_faulty_recipe_is_refused_by_name(recipe_file, old, new, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe_file(old, new))


def test_own_recipe_opens_from_its_file(recipe_file, tmp_path):
    plant(tmp_path / "pictures", ["x/1.png", "y/1.png"])
    source = open_source(str(recipe_file()), tmp_path / "pictures")
    assert [(entry.key, entry.split) for entry in source.entries()] == [("x/1.png", "train")]
    assert (source.name, source.licence) == ("mine", "L")


def test_missing_dataset_says_where_to_get_it_its_licence_and_its_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLURGEN_DATA", "/nowhere")
    with pytest.raises(FileNotFoundError) as caught:
        open_source("gopro")
    for part in (
        "/nowhere/gopro nor in data/gopro",
        "seungjunnah.github.io",
        "CC BY 4.0",
        "train/*/sharp/*.png",
        "--root",
    ):
        assert part in str(caught.value)
    (tmp_path / "data" / "gopro").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no image where it should"):
        open_source("gopro")


def test_root_comes_before_environment_before_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BLURGEN_DATA", str(tmp_path / "shared"))
    places = {"mine": tmp_path / "mine", "shared": tmp_path / "shared/div2k", "data": tmp_path / "data/div2k"}
    for number, place in enumerate(places.values(), 1):
        plant(place / "DIV2K_train_HR", [f"{number}.png"])
    keys = [open_source("div2k", root).entries()[0].key for root in (places["mine"], None)]
    monkeypatch.delenv("BLURGEN_DATA")
    keys.append(open_source("div2k").entries()[0].key)
    assert keys == [f"DIV2K_train_HR/{number}.png" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"src": "mapilary"}, "did you mean 'mapillary'"),
        ({"src": "missing"}, "got 'missing'"),
        ({"src": "zzz"}, "known are bdd100k, .*, flickr2k, gopro"),
        ({"src": "table.tsv"}, r"must be an image or end in one of \.txt, \.lst, .*, got 'table\.tsv'"),
        ({"src": "a.zip", "real": True}, "--real reads no pairs from an archive; unpack a.zip"),
        ({"src": "text", "real": True}, "--real does not apply"),
        ({"src": "text", "settings": {"font": "x"}}, "no option 'source.font': did you mean 'source.fonts'"),
        ({"src": ".", "settings": {"grup": "x"}}, "no option 'source.grup': did you mean 'source.group'"),
        ({"src": ".", "settings": {"layout": "pairs"}}, "has no layout 'pairs'"),
        ({"src": ".", "splits": ("train",)}, "has no split 'train': its images have none"),
        ({"src": ".", "root": "x"}, "--root does not apply"),
        ({"src": "*.png", "splits": ("train",)}, "--split does not apply"),
        ({"src": "list.txt", "real": True}, "--real does not apply"),
        ({"src": "div2k", "root": "div2k", "real": True}, "holds sharp images only"),
    ],
)
def test_wrong_use_names_the_way_out(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, ["a.png", "div2k/DIV2K_train_HR/0001.png"])
    (tmp_path / "list.txt").write_text("a.png\n")
    (tmp_path / "table.tsv").write_text("a.png\tcat\n")
    zipfile.ZipFile("a.zip", "w").close()
    with pytest.raises(ValueError, match=message):
        open_source(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"src": "empty"}, "^there is no image in empty: give a folder, a glob or an archive that holds some$"),
        ({"src": "empty", "real": True}, "^there is no image in empty"),
        ({"src": "missing.zip"}, "^--src missing.zip does not exist: give a folder"),
        ({"src": "photoz/"}, "^--src photoz/ does not exist: give a folder"),
        ({"src": "nope*/x.jpg"}, r"^the glob nope\*/x.jpg matches no image$"),
        ({"src": "nope*/x.jpg", "real": True}, r"^the glob nope\*/x.jpg matches no image$"),
        ({"src": "empty.txt"}, "^empty.txt lists no image"),
        ({"src": "empty.zip"}, "^there is no image in empty.zip$"),
        ({"src": "nomy.toml", "root": "empty"}, "^there is no recipe file nomy.toml$"),
        ({"src": "folder"}, "say where they lie with --root"),
    ],
)
def test_place_without_images_says_so_in_one_sentence(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    zipfile.ZipFile("empty.zip", "w").close()
    with pytest.raises(FileNotFoundError, match=message):
        open_source(**arguments)


@pytest.mark.parametrize("name", ["bsds500", "text", "folder"])
@pytest.mark.parametrize("real", [False, True])
def test_place_is_called_folder_and_opens_again_by_that_name(tmp_path, monkeypatch, name, real):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / name, ["a.png", "b/c.png"])
    first = open_source(f"./{name}", real=real)
    again = open_source(first.name, root=name, real=real)
    assert first.name == again.name == "folder"
    assert again.entries() == first.entries()


def test_globs_lists_and_archives_are_called_folder_and_open_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "text", ["a.png", "b/c.png"])
    (tmp_path / "gopro.txt").write_text("text/a.png\n")
    with zipfile.ZipFile("reds.zip", "w") as archive:
        archive.write("text/a.png")
    for src in ("text/*.png", "gopro.txt", "reds.zip", "text/a.png"):
        first = open_source(src)
        assert first.name == "folder"
        assert open_source("folder", root=src) == first


def test_folder_laid_out_as_pairs_gives_its_sharp_side_alone(tmp_path):
    plant(tmp_path, ["x/sharp/1.png", "x/blur/1.png", "gt/2.png", "input/2.png"])
    assert [entry.key for entry in open_source(str(tmp_path)).entries()] == ["gt/2.png", "x/sharp/1.png"]
    everything = open_source(str(tmp_path), settings={"layout": "images"}).entries()
    assert len(everything) == 4


@pytest.mark.parametrize("side", ["sharp", "input"])
def test_folder_with_one_side_gives_all_its_images(tmp_path, side):
    plant(tmp_path, [f"{side}/1.png", "other/2.png"])
    assert len(open_source(str(tmp_path)).entries()) == 2


def test_source_may_be_folder_glob_image_list_zip_or_tar(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "in", ["a.png", "b/c[1].png", "b/d.jpg"])
    (tmp_path / "list.txt").write_text("in/b/d.jpg\r\n\nin/a.png\n")
    with zipfile.ZipFile("in.zip", "w") as archive:
        archive.write("in/a.png")
    with tarfile.open("in.tgz", "w:gz") as archive:
        archive.add("in")
    expected = {
        "in": ["a.png", "b/c[1].png", "b/d.jpg"],
        "./in/": ["a.png", "b/c[1].png", "b/d.jpg"],
        "in/*/*.png": ["b/c[1].png"],
        f"{tmp_path}/in/**/*.png": ["a.png", "b/c[1].png"],
        "in/b/c[1].png": ["c[1].png"],
        "list.txt": ["in/a.png", "in/b/d.jpg"],
        "in.zip": ["in.zip!in/a.png"],
        "in.tgz": ["in.tgz!in/a.png", "in.tgz!in/b/c[1].png", "in.tgz!in/b/d.jpg"],
    }
    for src, keys in expected.items():
        source = pickle.loads(pickle.dumps(open_source(src)))
        assert [entry.key for entry in source.entries()] == keys, src
        assert source.read(keys[0]).sharp.shape == (6, 8, 3)
        assert source.size(keys[0]) == (8, 6)


def test_settings_change_the_reader(tmp_path):
    plant(tmp_path, ["room1_a.png", "room1_b.png", "room2_a.png"])
    source = open_source(str(tmp_path), settings={"group": r"room\d", "licence": "CC0-1.0"})
    assert [entry.group for entry in source.entries()] == ["room1", "room1", "room2"]
    assert source.licence == "CC0-1.0"


def test_real_folder_pairs_by_side_and_suffix(tmp_path):
    sharp = ["sharp/im01.png", "sharp/im02.png", "x/gt/1.png", "sharp/alone.png"]
    blurred = ["blurred/im01_ker02_blur.png", "blurred/im01_ker05_blur.png", "blur/im02_3_blur.jpg", "x/input/1.png"]
    plant(tmp_path, [*sharp, *blurred, "thumbnail.png"])
    source = open_source(str(tmp_path), real=True)
    groups = {entry.key: entry.group for entry in source.entries()}
    assert groups == dict(zip(blurred, ["sharp/im01.png"] * 2 + ["sharp/im02.png", "x/gt/1.png"], strict=True)) | {
        "sharp/alone.png": "sharp/alone.png"
    }


def test_real_folder_without_sides_is_blurred_only(tmp_path):
    plant(tmp_path, ["a.png", "b/c.png"])
    for src in (str(tmp_path), f"{tmp_path}/**/*.png"):
        source = open_source(src, real=True)
        assert source.sides == "blurred"
        assert [entry.key for entry in source.entries()] == ["a.png", "b/c.png"]
        assert source.read("a.png").sharp is None


def test_real_recipe_with_one_side_has_that_side(tmp_path):
    plant(tmp_path, ["train/GOPR0372_07_00/blur/000047.png"])
    source = open_source("gopro", tmp_path, real=True)
    assert source.sides == "blurred"
    assert source.licence == source.blurred.licence == "CC-BY-4.0"
    assert source.read(source.entries()[0].key).blurred.shape == (6, 8, 3)


def test_list_sources_counts_what_is_there(tmp_path):
    TREES[2].plant(tmp_path / "gopro")
    rows = {row.name: row for row in list_sources(tmp_path)}
    assert set(rows) == {"text", "leaves", *NAMES}
    assert rows["gopro"].count == len(TREES[2].sharp)
    assert rows["gopro"].path == str(tmp_path / "gopro")
    assert (rows["mapillary"].path, rows["mapillary"].count, rows["mapillary"].expected) == (None, 0, 25000)
    assert (rows["text"].path, rows["text"].count) == (None, None)


def test_seed_reaches_a_built_in_source():
    assert open_source("leaves", seed=7).seed == 7


def test_recipes_load_without_image_libraries():
    code = "import sys, blurgen.recipes as r; r.load_recipe('gopro'); print({'cv2', 'PIL', 'numba'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert output.stdout.strip() == "set()"
