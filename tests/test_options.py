"""Options: precedence, types, names, and the round trip through TOML."""

import os
from dataclasses import MISSING, dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from blurgen.options import Chosen, build, click_options, coerce, nearest, option, parse_value, resolve, to_toml


@dataclass(frozen=True)
class Example:
    source: Chosen = option(MISSING, "Where images come from.", flag="--src")
    crop: int = option(256, "Side, px.")
    scale_mean: float | None = option(None, "Mean side, px.")
    exposure: tuple[float, ...] = option((1.0,), "Exposures.")
    kernel: Chosen = option(Chosen("deblurgan"), "Kernel model.")
    out: Path = option(Path("shards.h5"), "Output.")
    noisy: bool = option(False, "Add noise.")
    codec: str = option("none", "Filter.", choices=("none", "gzip"))


@click.command()
@click_options(Example)
def command(config_file, assignments, **flags):
    try:
        click.echo(repr(resolve(Example, flags, config_file, assignments)))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def run(*words):
    return CliRunner().invoke(command, words)


def test_flag_beats_assignment_beats_file_beats_default(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('source = "text"\ncrop = 64\nscale_mean = 100\nexposure = [0.1, 0.5]\n')
    chosen = resolve(Example, {"crop": 32}, config, ["crop=48", "scale_mean=200"])
    assert (chosen.crop, chosen.scale_mean, chosen.exposure, chosen.codec) == (32, 200.0, (0.1, 0.5), "none")


def test_settings_of_a_part_join_its_name_wherever_it_comes_from(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[source]\nname = "text"\nfonts = "a"\n')
    made = resolve(Example, {"kernel": "walk"}, config, ["kernel.length_px=30", "source.fonts=/b c"])
    assert made.kernel == Chosen("walk", {"length_px": 30})
    assert made.source == Chosen("text", {"fonts": "/b c"})
    assert resolve(Example, {"source": "text"}, None, ["kernel.samples=9"]).kernel == Chosen(
        "deblurgan", {"samples": 9}
    )


def test_toml_of_an_object_reads_back_equal(tmp_path):
    made = Example(
        Chosen('we"ird\nname\x7f', {"fonts": "ü", "n": [1, 2]}),
        3,
        2.5,
        (0.1, 1.0),
        Chosen("walk", {"a": True}),
        noisy=True,
    )
    (tmp_path / "c.toml").write_text(to_toml(made), encoding="utf-8")
    assert resolve(Example, {}, tmp_path / "c.toml") == made


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": "a", "crp": 1}, "no option 'crp': did you mean 'crop'"),
        ({"source": "a", "crop": "wide"}, "crop must be a whole number, got 'wide'"),
        ({"source": "a", "crop": True}, "crop must be a whole number, got True"),
        ({"source": "a", "crop": 1.5}, "crop must be a whole number, got 1.5"),
        ({"source": "a", "scale_mean": "x"}, "scale_mean must be a number or none"),
        ({"source": "a", "exposure": ["x"]}, "exposure must be a number, got 'x'"),
        ({"source": "a", "codec": "zip"}, "codec must be one of none, gzip, got 'zip'"),
        ({"source": "a", "noisy": 1}, "noisy must be true or false"),
        ({}, "option --src is missing"),
        ({"source": "a", "noisy": {"x": 1, "name": True}}, r"'noisy\.x': noisy has no settings, it is true or false"),
        (
            {"source": "a", "scale_mean": {"x": 1}},
            r"'scale_mean\.x': scale_mean has no settings, it is a number or none",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(Example, values)


def test_assignment_without_value_is_refused():
    with pytest.raises(ValueError, match="NAME=VALUE"):
        resolve(Example, {}, None, ["crop"])


def test_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "c.toml").write_text("crop = = 3")
    with pytest.raises(ValueError, match="no valid TOML"):
        resolve(Example, {}, tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("crop = " + "[" * 3000, "is no valid TOML file: it is nested too deeply"),
        ("crop = " + "9" * 5000, "is no valid TOML file"),
        ("crop = 3 # " + "x" * (1 << 20), "must be a TOML file of at most 1,048,576 bytes, got more"),
        ("scale_mean = " + "9" * 400, "scale_mean must be a number or none, got 999"),
        ("exposure = [" + "9" * 400 + "]", "exposure must be a number below 1e308"),
        ("exposure = [nan]", "exposure must be a number, got nan"),
        ("crop = 1979-05-27", "crop must be a whole number, got datetime"),
    ],
    ids=["nested", "digits", "size", "400 digits", "400 digits in a list", "nan", "date"],
)
def test_file_of_absurd_values_is_refused_by_name(tmp_path, text, sentence):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        resolve(Example, {"source": "text"}, tmp_path / "c.toml")


def test_file_of_another_editor_and_pipe_are_read(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbfcrop = 3\n")
    assert resolve(Example, {"source": "text"}, tmp_path / "c.toml").crop == 3
    reader, writer = os.pipe()
    os.write(writer, b"crop = 5\n")
    os.close(writer)
    assert resolve(Example, {"source": "text"}, Path(f"/dev/fd/{reader}")).crop == 5
    os.close(reader)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("true", True), ("[1, 2]", [1, 2]), ("a/b", "a/b"), ('"3"', "3"), ("", "")],
)
def test_assigned_text_is_a_toml_value_or_itself(text, value):
    assert parse_value(text) == value


def test_none_is_a_word_for_nothing():
    assert coerce("none", float | None, "anxiety") is None


def test_flags_of_a_command_reach_the_object():
    result = run("--src", "text", "--exposure", "0.1", "--exposure", "1", "--noisy", "--set", "kernel.side_px=9")
    assert result.exit_code == 0, result.output
    assert "exposure=(0.1, 1.0)" in result.output
    assert "noisy=True" in result.output
    assert "'side_px': 9" in result.output


def test_help_shows_defaults():
    shown = run("--help").output
    assert "[default: 256]" in shown
    assert "[default: deblurgan]" in shown


def test_nearest_name_or_all_names():
    assert nearest("wlk", ["walk", "gp"]) == "did you mean 'walk'?"
    assert nearest("zzz", ["walk", "gp"]) == "known are gp, walk"


def test_part_without_fields_says_that_it_has_no_settings():
    @dataclass(frozen=True)
    class Nothing:
        pass

    with pytest.raises(ValueError, match=r"no option 'noise\.photons': the noise chosen has no settings"):
        build(Nothing, {"photons": 5}, "noise.")


@pytest.mark.parametrize("first", ["crop=5", "crop=true"])
def test_setting_of_a_plain_value_is_refused_in_any_order(first):
    with pytest.raises(ValueError, match=r"no option 'crop\.x': crop has no settings"):
        resolve(Example, {"source": "text"}, None, [first, "crop.x=1"])


def test_toml_of_a_path_in_another_encoding_can_be_written():
    written = to_toml(Example(Chosen("f\udcc3\udca9"), out=Path("g\udcff")))
    assert 'name = "f\u00e9"' in written.encode().decode()
    assert 'out = "g\ufffd"' in written
