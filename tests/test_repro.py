"""The reproductions: their files are understood, their options taken, every figure has a source, the table is right."""

import importlib.util
import json
import re
import shlex
from functools import partial
from pathlib import Path

import click
import pytest

from blurgen.cli import main as blurgen
from blurgen.make_options import MakeOptions
from blurgen.make_options import RunOptions as MakeRunOptions
from blurgen.options import resolve, resolve_together
from trainers.cli import _preset
from trainers.cli import main as trainers
from trainers.eval_options import EvalOptions
from trainers.models import MODELS, method_class

FOLDER = Path(__file__).parents[1] / "benchmarks" / "repro"
specification = importlib.util.spec_from_file_location("repro_run", FOLDER / "run.py")
repro = importlib.util.module_from_spec(specification)
specification.loader.exec_module(repro)

NAMES = repro.names()
scales = pytest.mark.parametrize("scale", repro.SCALES)
reproductions = pytest.mark.parametrize("name", NAMES)
GIVEN = {"sharp": "sharp/a.png", "blurred": "blurred/a.png"}


def calls(name, scale):
    reproduction = repro.read(name, scale)
    given = {key: GIVEN[key] for key in reproduction.files}
    return reproduction, repro.commands(reproduction, Path("out"), "photos", given)


def parsed(command, words):
    """Return what click makes of words, or fail with its message."""
    # A command keeps the names of its help option from its first context.
    names = ["-h", "--help"]
    try:
        values = command.make_context(command.name, [str(word) for word in words], help_option_names=names).params
    except click.ClickException as error:
        pytest.fail(f"{shlex.join(words)}: {error.message}")
    return values


def resolved(parts, command, words, *rest, apart=()):
    values = {key: value for key, value in parsed(command, words).items() if key not in apart}
    return resolve_together(parts, values, values.pop("config_file"), values.pop("assignments"), *rest)


def test_every_system_is_reproduced():
    found = {variant.system for name in NAMES for variant in repro.read(name).variants}
    assert found >= set(MODELS) - {"toy"}
    assert {"cross-domain", "vegan", "as-cyclegan", "deblurgan", "singan"} <= set(NAMES)


@scales
@reproductions
def test_every_command_takes_its_options(name, scale):
    reproduction, found = calls(name, scale)
    apart = ("as_json", "quiet", "dry_run", "max_bad")
    for program, verb, *words in found:
        if program == "blurgen":
            assert verb == "make"
            resolved((MakeOptions, MakeRunOptions), blurgen.commands["make"], words, apart=apart)
        elif verb == "eval":
            values = parsed(trainers.commands["eval"], words)
            flags = {key: value for key, value in values.items() if key not in (*apart, "weights", "pairs")}
            resolve(EvalOptions, flags, flags.pop("config_file"), flags.pop("assignments"))
        else:
            assert verb == "run"
            system = method_class(words[0])
            command = trainers.commands["run"].get_command(None, words[0])
            values = parsed(command, words[1:])
            assert set(values) > {"width", "seed", "out"}
            config = config_of(system, values, apart)
            assert isinstance(config, system.Config)
    runs = [words for words in found if words[:2] == ["trainers", "run"]]
    assert len(runs) == len(reproduction.variants) * len(reproduction.seeds)
    assert len({words[words.index("--out") + 1] for words in runs}) == len(runs)


def config_of(system, values, apart):
    """Return the Config that the command would train with."""
    from trainers.data import DataOptions
    from trainers.run_options import RunOptions

    flags = {key: value for key, value in values.items() if key not in apart}
    own = {field for part in (system.Config, DataOptions, RunOptions) for field in part.__dataclass_fields__}
    flags = {key: value for key, value in flags.items() if key in own or key in ("config_file", "assignments")}
    parts = (system.Config, DataOptions, RunOptions)
    return resolve_together(parts, flags, flags.pop("config_file"), flags.pop("assignments"), partial(_preset, system))[
        0
    ]


@reproductions
def test_variants_are_compared_on_three_seeds(name):
    reproduction = repro.read(name)
    assert len(set(reproduction.seeds)) == len(reproduction.seeds) >= (3 if len(reproduction.variants) > 1 else 1)


@reproductions
def test_every_figure_says_where_it_is_from(name):
    reproduction = repro.read(name)
    assert all(row.scale in repro.SCALES and row.citation for row in reproduction.measured)
    for row in reproduction.reported:
        assert row.citation.startswith("paper of ")
        assert row.values
        assert 5 < row.values.get("psnr", 20) < 45
        assert all(0 <= row.values.get(key, 0) <= 1 for key in ("ssim", "iou", "lpips", "fourier_of_paper"))
    if not reproduction.reported:
        assert "no figure" in reproduction.protocol.lower() or "none is repeated" in reproduction.protocol


def test_figures_are_those_of_the_papers():
    rows = {(name, row.variant, row.of): row.values for name in NAMES for row in repro.read(name).reported}
    assert rows["as-cyclegan", "v2", "ResNetv2"] == {"psnr": 28.3, "ssim": 0.935, "seconds": 0.96}
    assert rows["cyclegan", "official", "CycleGAN"]["psnr"] == 23.8
    assert rows["vegan", "spl", "scaled perceptual loss"] == {"iou": 0.5334, "lpips": 0.247, "fourier_of_paper": 0.0634}
    assert len(rows) == 13


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a reproduction of its own."""
    monkeypatch.setattr(repro, "FOLDER", tmp_path)
    return tmp_path


ONE = """
system = "deblurgan"
source = "a source"
protocol = "a protocol"
schedule = "a schedule"
seeds = [0, 1]
[data]
train = "--src gopro --real"
[variants.a]
train = "--data {train}"
[small]
seeds = [5]
train = "--width 4"
[small.data]
train = "--src {photos} --crop 32"
[small.variants.a]
eval = "--split all"
"""
ROW = '[[reported]]\nvariant = "a"\nof = "theirs"\npsnr = 27.5\n'


def test_small_scale_changes_data_seeds_and_options(folder):
    (folder / "one.toml").write_text(ONE)
    paper, small = (repro.commands(repro.read("one", scale), Path("o"), "leaves") for scale in repro.SCALES)
    assert paper[:2] == [
        ["blurgen", "make", "--src", "gopro", "--real", "--out", "o/train.h5"],
        ["trainers", "run", "deblurgan", "--data", "o/train.h5", "--seed", "0", "--out", "o/a-0"],
    ]
    assert len(paper) == 5
    assert "no paper" in repro.read("one", "small").protocol
    assert repro.read("one").protocol == "a protocol"
    assert small == [
        ["blurgen", "make", "--src", "leaves", "--crop", "32", "--out", "o/train.h5"],
        ["trainers", "run", "deblurgan", "--data", "o/train.h5", "--width", "4", "--seed", "5", "--out", "o/a-5"],
        ["trainers", "eval", "o/a-5", "--split", "all", "--out", "o/a-5/measured"],
    ]


def test_a_run_is_measured_beside_that_of_a_variant_above_with_its_seed(folder):
    more = '[variants.b]\ntrain = "--data {train}"\neval = "--beside {a_run}"\n[small]'
    (folder / "one.toml").write_text(ONE.replace("[small]", more, 1))
    measured = [words for words in repro.commands(repro.read("one"), Path("o")) if "--beside" in words]
    assert [words[2:5] for words in measured] == [[f"o/b-{n}", "--beside", f"o/a-{n}"] for n in range(2)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ONE + ROW, "one.toml has a row of 'a' without a citation"),
        (
            ONE + ROW.replace('"a"', '"b"') + 'citation = "c"\n',
            "one.toml has a row of 'b', which is none of its variants",
        ),
    ],
)
def test_rows_without_a_source_or_a_variant_are_refused(text, sentence, folder):
    (folder / "one.toml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        repro.read("one")


def test_table_sets_measured_beside_reported(folder, capsys):
    (folder / "one.toml").write_text(ONE + ROW + 'citation = "paper of A"\n')
    repro.main(["one", "--dry-run", "--out", str(folder / "out")])
    shown = capsys.readouterr().out
    assert "trainers run deblurgan" in shown
    assert "Schedule: a schedule" in shown
    assert ["theirs", "reported", "27.5", "paper", "of", "A"] in [line.split() for line in shown.splitlines()]
    assert "a       measured here, paper scale  not measured" in shown
    for seed, value in ((0, 20.0), (1, 22.0)):
        lower = {"output": 0, "input": 5, "bicubic, then other": 9}
        rows = {row: {"psnr": {"mean": value - less, "std": 1}} for row, less in lower.items()}
        path = folder / "out" / f"a-{seed}" / "measured"
        path.mkdir(parents=True)
        (path / "eval.json").write_text(json.dumps({"rows": rows}))
    repro.main(["one", "--dry-run", "--out", str(folder / "out")])
    shown = capsys.readouterr().out
    assert "not measured" not in shown
    assert "21.0000 ± 1.4142" in shown
    assert "16.0000 ± 1.4142" in shown
    assert re.search(r"bicubic, then other +12\.0000 ± 1\.4142", shown)
    assert "seeds: 2 of 2" in shown


def test_files_that_are_wanted_are_asked_for():
    reproduction = repro.read("singan")
    with pytest.raises(ValueError, match=r"singan wants the .* image.*: give --file "):
        repro.given_files(reproduction, [])
    with pytest.raises(ValueError, match="wants no file 'mask': it wants sharp, blurred"):
        repro.given_files(reproduction, ["mask=x.png"])
    assert repro.given_files(reproduction, ["sharp=a=b.png", "blurred=c.png"]) == {
        "sharp": "a=b.png",
        "blurred": "c.png",
    }


def test_a_command_that_fails_ends_the_reproduction(capfd):
    with pytest.raises(SystemExit) as stopped:
        repro.run([["blurgen", "--no-such-option"], ["blurgen", "--version"]])
    assert stopped.value.code == 2
    assert "version" not in capfd.readouterr().out.replace("--version", "")


def test_a_reproduction_that_is_stopped_says_how_it_goes_on(monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(repro.subprocess, "run", stopped)
    with pytest.raises(SystemExit) as ended:
        repro.run([["blurgen", "doctor"]])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped; the same reproduction continues\n"
