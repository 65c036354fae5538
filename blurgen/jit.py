"""Compile with numba and keep the machine code on disk, surviving a damaged or unwritable cache."""

import logging
from collections.abc import Callable

import numba
from numba.core.caching import FunctionCache

_log = logging.getLogger(__name__)


class _HealingCache(FunctionCache):
    """A numba cache that recompiles instead of raising when its files are truncated or cannot be written."""

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # any damage to a pickle can raise anything
            _log.info("recompiling %s: its cache is damaged (%s)", self._name, error)
            self._discard()
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as error:  # reading a damaged index comes before writing it
            _log.info("the compiled %s is not kept: %s", self._name, error)
            self._discard()

    def _discard(self):
        try:
            self.flush()
        except OSError as error:
            _log.info("the damaged cache of %s stays: %s", self._name, error)
            self.disable()


def njit(function: Callable | None = None, /, **options) -> Callable:
    """Return `function` compiled by `numba.njit`, cached on disk where some directory can be written.

    With ``NUMBA_DISABLE_JIT=1`` the function comes back as it is. Options are those of `numba.njit`.
    A cached caller does not notice a change in a compiled function of another file: delete
    ``__pycache__`` after such an edit.
    """
    if function is None:
        return lambda wrapped: njit(wrapped, **options)
    compiled = numba.njit(**options)(function)
    if compiled is function:
        return function
    try:
        compiled._cache = _HealingCache(function)
    except RuntimeError as error:  # numba found no directory that it can write
        _log.info("compiling %s in every process: %s", function.__name__, error)
    return compiled
