"""A worker that is a process of its own: whatever an image does to it, nobody else is touched.

The worker writes the key of the image it has in hand into a small file in memory that the parent reads when it has
died, and a timer of the kernel ends it when one image takes too long, even where a library hangs.
"""

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import cloudpickle

from blurgen.shards.layout import MAX_KEY
from blurgen.worker import Job, build, warm_up

_NOTHING = b"\0" * MAX_KEY
_IDLE_S = 60.0


class WorkerDied(Exception):
    """A worker process has ended in the middle of its work.

    Parameters
    ----------
    key : str
        The image that it had in hand; ``""`` where it had none.
    code : int
        Its exit code, or minus the signal that ended it.
    """

    def __init__(self, key: str, code: int):
        super().__init__(key, code)
        self.key, self.code = key, code

    @property
    def timed_out(self) -> bool:
        """Whether its own timer ended it."""
        return self.code == -signal.SIGALRM

    def __str__(self) -> str:
        return f"was ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with code {self.code}"


class WorkerProcess:
    """The parent's side of one worker process, which waits for work until it is told to or the parent is gone."""

    def __init__(self):
        self._mark = os.memfd_create("blurgen-in-hand")
        self._pipe, theirs = Pipe()
        descriptors = theirs.fileno(), self._mark
        start = f"from blurgen.worker_process import serve; serve{descriptors}"
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        with theirs, _stop_signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", start],
                env={**os.environ, "PYTHONPATH": paths},
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def build(self, job: Job, folder: str, image_timeout_s: float) -> Path:
        """Let the worker build a shard, and return its path; the job's paths are relative to `folder`.

        Raises
        ------
        WorkerDied
            It did not live to answer.
        Exception
            Whatever the work raised.
        """
        task = cloudpickle.dumps((job, folder, image_timeout_s))
        os.pwrite(self._mark, _NOTHING, 0)
        try:
            self._pipe.send_bytes(task)
            answer = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            self.kill()
            raise WorkerDied(self._in_hand(), self._process.wait()) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _in_hand(self) -> str:
        return os.pread(self._mark, MAX_KEY, 0).rstrip(b"\0").decode()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and give back what it took; not while another thread waits for its answer."""
        self.kill()
        self._process.wait()
        self._pipe.close()
        os.close(self._mark)


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Let what is started here never see Ctrl-C and SIGTERM, which terminals and clusters send to whole groups.

    The parent is the one to act on them, and ends its workers itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(pipe_descriptor: int, mark: int) -> None:
    """Do the work that comes through the pipe until its other end is closed, or nothing has come for a while."""
    pipe, in_hand = Connection(pipe_descriptor), InHand(mark)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    threading.Thread(target=_end_with_parent, args=(pipe_descriptor,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while pipe.poll(_IDLE_S):
            pipe.send_bytes(_answer(pipe.recv_bytes(), in_hand))


def _end_with_parent(descriptor: int) -> None:
    """End this process when the other end of its pipe is closed, in the middle of whatever it does."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    poll.poll()
    os._exit(1)


def _answer(task: bytes, in_hand: "InHand") -> bytes:
    """Return the path of the shard that was built, or the exception that prevented it, pickled."""
    try:
        job, folder, in_hand.timeout_s = pickle.loads(task)
        os.chdir(folder)
        if in_hand.look != job.look:
            warm_up(job)
            in_hand.look = job.look
        return pickle.dumps(build(job, in_hand))
    except Exception as error:
        in_hand("")
        with contextlib.suppress(Exception):  # not every exception can be sent and made again
            error.add_note(traceback.format_exc())
            data = pickle.dumps(error)
            pickle.loads(data)
            return data
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


class InHand:
    """Notes which image the worker has in hand, and sets the alarm that ends the worker if it takes too long.

    Attributes
    ----------
    timeout_s : float
        How long a crop of an image may take, s.
    look : Look
        What this process has compiled its functions for: that takes longer than an image may.
    """

    def __init__(self, mark: int):
        self.timeout_s, self.look = 0.0, None
        self._mark, self._key = mark, ""

    def __call__(self, key: str) -> None:
        """Take up the image `key` for a crop, or ``""`` for none."""
        if key != self._key:
            os.pwrite(self._mark, key.encode().ljust(MAX_KEY, b"\0"), 0)
            self._key = key
        signal.setitimer(signal.ITIMER_REAL, self.timeout_s if key else 0)
