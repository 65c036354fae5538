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


def run(target, cases, timeout_s=20):
    """Return the outcomes of many cases, each within limits of its own."""
    with Confined(f"fuzz_texts:{target}", timeout_s) as read:
        outcomes = [read(case) for case in cases]
        assert read.peak_mib < MOST_MIB
    return outcomes


@pytest.mark.parametrize(("count", "seed"), [pytest.param(60, 0), FULL])
def test_mutant_of_a_recipe_is_used_or_refused(count, seed):
    rng, seeds = np.random.default_rng(seed), recipes()
    outcomes = run("read_recipe", (text_mutant(seeds[n % len(seeds)], rng, WORDS) for n in range(count)))
    refused = sum(len(outcome) == 1 for outcome in outcomes)
    assert count / 10 < refused < count


@pytest.mark.parametrize(("count", "seed"), [pytest.param(60, 0), FULL])
def test_mutant_of_a_config_is_planned_or_refused(count, seed):
    rng = np.random.default_rng(seed)
    outcomes = run("read_config", (text_mutant(CONFIGS[n % 2], rng, WORDS) for n in range(count)))
    assert 0 < outcomes.count("done") < count


@pytest.mark.parametrize(("count", "seed"), [pytest.param(15, 0), FULL])
def test_mutant_of_a_plan_in_a_file_is_used_or_refused(count, seed):
    rng = np.random.default_rng(seed)
    with Confined("fuzz_texts:plan_document") as read:
        attrs = read(b"")
    cases = [attrs, *(json_mutant(attrs, rng, VALUES) for _ in range(count))]
    cases = [case if isinstance(case, dict) else {"plan": case} for case in cases]
    whole, *outcomes = run("read_plan", (json.dumps(case).encode() for case in cases))
    assert whole == ["done"] * 4
    assert 0 < sum(outcome != whole for outcome in outcomes) <= count


@pytest.mark.parametrize(("count", "seed"), [pytest.param(15, 0), FULL])
def test_mutant_of_the_plan_of_a_stopped_run_continues_or_is_refused(count, seed):
    rng = np.random.default_rng(seed)
    with Confined("fuzz_texts:read_state") as read:
        text = read(b"")[0]
    plan = json.loads(text)
    cases = [
        json.dumps(json_mutant(plan, rng, VALUES)).encode() if n % 3 else mutant(text.encode(), rng)
        for n in range(count)
    ]
    whole, *outcomes = run("read_state", [text.encode(), *cases])
    assert whole == ["done"]
    assert sum(outcome != whole for outcome in outcomes) > 0
