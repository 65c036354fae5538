"""What a worker compiles before its first image is all that it needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from photos import write_photos

ROOT = Path(__file__).parents[1]
CODE = """if True:
    import gc
    from pathlib import Path
    from numba.core.dispatcher import Dispatcher
    from blurgen.make_options import MakeOptions, RunOptions
    from blurgen.options import Chosen
    from blurgen.plan import make_plan
    from blurgen.run import Run
    from blurgen.worker import build, warm_up

    def compiled():
        functions = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
        return {one.py_func.__qualname__: list(one.signatures) for one in functions}

    plan = make_plan(MakeOptions(source=Chosen("photos"), OPTIONS))
    (job,) = Run(plan, Path("a.h5"), 4).jobs()
    job.path.parent.mkdir()
    warm_up(job)
    before = compiled()
    build(job)
    assert any(before.values())
    assert compiled() == before, {name: found for name, found in compiled().items() if before.get(name) != found}
"""


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("crop=100", marks=pytest.mark.slow),
        "crop=96, lowres=(2, 3), scale_mean=120.0, scale_std=20.0, saturation=True",
        pytest.param("crop=100, resize_short=110, noise=Chosen('realblur')", marks=pytest.mark.slow),
        pytest.param("crop=100, response='gamma2.2', small='scale'", marks=pytest.mark.slow),
    ],
)
def test_worker_compiles_nothing_after_its_warm_up(tmp_path, options):
    write_photos(tmp_path / "photos", 4, 120, 160)
    command = [sys.executable, "-c", CODE.replace("OPTIONS", options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
