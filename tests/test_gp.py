"""The Gaussian process: its law over all samples, and the same bytes whatever computes the linear algebra."""

import os
import subprocess
import sys

import naive
import numpy as np
import pytest

from blurgen.kernels.gp import _SAMPLES, GaussianProcess, _law
from blurgen.rng import stream

LAWS = [(nu, timescale) for nu in (1.5, 2.5) for timescale in (0.05, 0.3, 2.0)]
PRINT_BYTES = """
from hashlib import sha256
from blurgen.kernels.gp import GaussianProcess
from blurgen.rng import stream
for nu in (1.5, 2.5):
    drawn = GaussianProcess(nu=nu).sample(stream(7, "threads"))
    print(sha256(drawn.path.tobytes()).hexdigest(), sha256(drawn.kernel.tobytes()).hexdigest())
"""


@pytest.mark.parametrize(("nu", "timescale"), LAWS)
def test_chain_has_the_matern_covariance_at_every_lag(nu, timescale):
    """cov(x(t), x(0)) is the first entry of A**t P for the transition A and the covariance P of a state."""
    start, noise, transition = _law(nu, timescale)
    covariance = start @ start.T
    assert np.allclose(transition @ covariance @ transition.T + noise @ noise.T, covariance, rtol=1e-12)
    at_lag = covariance
    seen = []
    for _ in range(_SAMPLES):
        seen.append(at_lag[0, 0] / covariance[0, 0])
        at_lag = transition @ at_lag
    assert np.allclose(seen, naive.matern(np.arange(_SAMPLES) / (_SAMPLES - 1) / timescale, nu), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("nu", "timescale"), LAWS)
def test_path_equals_the_chain_in_plain_python(nu, timescale):
    path = GaussianProcess(nu=nu, timescale=timescale).path(stream(1, 2))
    expected = naive_path(nu, timescale, stream(1, 2))
    expected -= expected[0]
    expected *= 30 / np.hypot(*np.diff(expected, axis=0).T).sum()
    assert np.allclose(path, expected, rtol=0, atol=1e-9)


def naive_path(nu, timescale, rng):
    start, noise, transition = _law(nu, timescale)
    key = naive.key_of(rng.random(), rng.random())
    pairs = np.array([naive.normal_pair(key, t) for t in range(_SAMPLES * len(start))])
    white = np.stack((pairs.real, pairs.imag), axis=-1).reshape(_SAMPLES, len(start), 2)
    states = [start @ white[0]]
    for row in white[1:]:
        states.append(transition @ states[-1] + noise @ row)
    return np.array(states)[:, 0]


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_linear_algebra():
    def printed(**environment):
        command = [sys.executable, "-c", PRINT_BYTES]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, check=True).stdout.split()

    alone = printed(OPENBLAS_NUM_THREADS="1")
    assert len(alone) == 4
    assert printed(OPENBLAS_NUM_THREADS="2", OPENBLAS_CORETYPE="Nehalem") == alone
