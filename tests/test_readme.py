"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from blurgen.cli import main
from trainers.cli import main as trainers

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.split("\n")[-2][:30])
def test_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "shards.h5" in snippet:
        made = CliRunner().invoke(main, ["make", "--src", "leaves", "--count", "2", "--workers", "1", "--quiet"])
        assert made.exit_code == 0, made.output
    exec(snippet, {})


def test_every_command_of_the_readme_takes_its_options():
    for line in re.findall(r"^    blurgen (\w+)(.*?)(?:#.*)?$", README, re.MULTILINE):
        command = main.commands[line[0]]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"(?<!\S)--[\w-]+", line[1])) <= known, line


def test_every_training_command_of_the_readme_takes_its_options():
    lines = re.findall(r"^    (?:torchrun .*-m )?trainers (\w+)(.*?)(?:#.*)?$", README, re.MULTILINE)
    assert {name for name, _ in lines} == set(trainers.commands)
    for name, rest in lines:
        command = trainers.commands[name]
        if name == "run":
            command = command.get_command(None, rest.split()[0])
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"(?<!\S)--[\w-]+", rest)) <= known | {"--help"}, rest


def test_picture_is_small():
    assert (Path(__file__).parents[1] / "docs" / "strip.png").stat().st_size < 300_000
