"""Recipes, configs and plans with absurd or damaged contents end in one sentence: no traceback, no hang, no flood."""

import json
from pathlib import Path

import numpy as np
import pytest
from confined import Confined
from mutants import json_mutant, mutant, text_mutant

ROOT = Path(__file__).parents[1]
MOST_MIB = 600
FULL = pytest.param(500, 1, marks=pytest.mark.slow)
WORDS = (
    *("", "0", "-1", "1", "2", "0.5", "-0.0", "1e-320", "1e300", "1e400", "nan", "inf", "-inf", "true", "[]", "{}"),
    *("2147483648", "9223372036854775807", "9" * 400, "9" * 5000, "0x7fffffff", "1_000_000", "[1.0, 1.0]", "[nan]"),
    *('""', '"\\u0000"', '"\\ud800"', '"' + "x" * 3000 + '"', "1979-05-27", "'''", "[" * 50, "[" * 3000, "{a = 1}"),
    *('"/etc/passwd"', '"../.."', '"groups.txt"', '["**/**/**/**/**/*"]', '["../*/*.png"]', '"("', '"((.*)(.*)(.*))"'),
    *("\n[[layout]]\n", "\n[kernel]\n", "\x00", "\x1b[31m", "\u00e9", "#", '"walk"', '"text"', '"gzip"', "[64]"),
    *("16384", "[2, 2]", '"none"', "a.b.c"),
)  # fmt: skip
CONFIGS = (
    """source = "text"
crop = 64
exposure = [0.5, 1.0]
count = 10
lowres = [2, 4]
split = []
seed = 3
response = "srgb"
saturation = false
workers = 2
backend = "threading"
shard_mib = 8
out = "a.h5"
small = "scale"
scale_mean = 80.0
scale_std = 10.0
resize_short = 300
per_image = 2
codec = "gzip"

[kernel]
name = "walk"
length_px = 30.0
anxiety = 0.005
samples = 500
side_px = 15

[noise]
name = "boracchi-foi"
photons = 1000.0
read = 0.5
""",
    """crop = 32
count = 3

[source]
name = "leaves"
width = 300
height = 300

[kernel]
name = "gp"
""",
)
VALUES = (
    *(None, True, 0, -1, 1, 2, 0.5, 1e300, float("nan"), float("inf"), 1 << 31, 1 << 63, 10**400, "", "x", "walk"),
    *("\0", "\ud800", "x" * 3000, "/etc/passwd", [], [1], [[]], [None], ["a", "b", "c"], {}, {"name": "x"}, {"a": 1}),
)  # fmt: skip


def recipes():
    return [path.read_text(encoding="utf-8") for path in sorted((ROOT / "datasets").glob("*.toml"))]


@pytest.fixture(scope="module")
def ask():
    """Return a call of the functions of `fuzz_texts` in a child that lives as long as it survives."""
    with Confined("fuzz_texts:read", timeout_s=20) as read:

        def call(name, data=b""):
            outcome = read(name.encode() + b"\n" + data)
            assert read.peak_mib < MOST_MIB
            return outcome

        yield call


@pytest.mark.parametrize(("count", "seed"), [pytest.param(40, 0), FULL])
def test_mutant_of_a_recipe_is_used_or_refused(count, seed, ask):
    rng, seeds = np.random.default_rng(seed), recipes()
    outcomes = [ask("read_recipe", text_mutant(seeds[number % len(seeds)], rng, WORDS)) for number in range(count)]
    refused = sum(len(outcome) == 1 for outcome in outcomes)
    assert count / 10 < refused < count


@pytest.mark.parametrize(("count", "seed"), [pytest.param(40, 0), FULL])
def test_mutant_of_a_config_is_planned_or_refused(count, seed, ask):
    rng = np.random.default_rng(seed)
    outcomes = [ask("read_config", text_mutant(CONFIGS[number % 2], rng, WORDS)) for number in range(count)]
    assert 0 < outcomes.count("done") < count


@pytest.mark.parametrize(("count", "seed"), [pytest.param(8, 0), FULL])
def test_mutant_of_a_plan_in_a_file_is_used_or_refused(count, seed, ask):
    rng, attrs = np.random.default_rng(seed), ask("plan_document")
    assert ask("read_plan", json.dumps(attrs).encode()) == ["done"] * 4
    refused = 0
    for _ in range(count):
        forged = json_mutant(attrs, rng, VALUES)
        forged = forged if isinstance(forged, dict) else {"plan": forged}
        refused += ask("read_plan", json.dumps(forged).encode()) != ["done"] * 4
    assert refused > 0


@pytest.mark.parametrize(("count", "seed"), [pytest.param(8, 0), FULL])
def test_mutant_of_the_plan_of_a_stopped_run_continues_or_is_refused(count, seed, ask):
    rng, (text,) = np.random.default_rng(seed), ask("read_state")
    assert ask("read_state", text.encode()) == ["done"]
    refused = 0
    for number in range(count):
        forged = json.dumps(json_mutant(json.loads(text), rng, VALUES)).encode()
        refused += ask("read_state", forged if number % 3 else mutant(text.encode(), rng)) != ["done"]
    assert refused > 0
