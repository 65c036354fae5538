"""Compile with numba and keep the machine code on disk, surviving a damaged or unwritable cache."""

import hashlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

_log = logging.getLogger(__name__)
_DIGEST_BYTES = hashlib.sha256().digest_size


class _SealedFiles(IndexDataCacheFile):
    """The files of a cache, each with its digest at the end: machine code that was damaged would run all the same."""

    def _dump(self, obj: Any) -> bytes:
        data = super()._dump(obj)
        return data + hashlib.sha256(data).digest()

    def _load_index(self) -> dict:
        try:
            with open(self._index_path, "rb") as file:
                pickle.load(file)  # the version stands in front, unsealed
                _check_seal(file.read())
        except FileNotFoundError:
            return {}
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check_seal(Path(self._data_path(name)).read_bytes())
        return super()._load_data(name)


def _check_seal(data: bytes) -> None:
    if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        raise ValueError("its digest is another one")


class _HealingCache(FunctionCache):
    """A numba cache that recompiles instead of raising when its files are truncated or cannot be written."""

    def __init__(self, py_func: Callable):
        super().__init__(py_func)
        locator, base = self._impl.locator, self._impl.filename_base
        self._cache_file = _SealedFiles(self._cache_path, base, locator.get_source_stamp())

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
        with _without_a_home_no_cache_in_it():
            compiled._cache = _HealingCache(function)
    except RuntimeError as error:  # numba found no directory that it can write
        _log.info("compiling %s in every process: %s", function.__name__, error)
    return compiled


@contextmanager
def _without_a_home_no_cache_in_it() -> Iterator[None]:
    """Keep numba, where the user has no home, from making a folder named ``~`` in the current one."""
    if "XDG_CACHE_HOME" in os.environ or os.path.isabs(os.path.expanduser("~")):
        yield
        return
    os.environ["XDG_CACHE_HOME"] = os.devnull
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]
