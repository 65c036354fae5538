"""Files for HDF5 to write into that cannot fail under it: an error inside HDF5 can end the interpreter."""

import io
import os

from blurgen.shards.drafts import SYNC_BYTES

_PAGE = 1 << 16


class MemoryFile(io.RawIOBase):
    """A sparse file in memory, read and written by h5py's ``fileobj`` driver."""

    def __init__(self):
        super().__init__()
        self.size = 0
        self._pages: dict[int, bytearray] = {}
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to `offset` and return the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int) -> int:
        """Set the size of the file; a part that was never written reads as zeros."""
        self.size = size
        return size

    def flush(self) -> None:
        """Do nothing."""

    def readinto(self, out) -> int:
        """Fill `out` from the position on."""
        view = memoryview(out).cast("B")
        for start, stop, page, at in self._spans(len(view)):
            stored = self._pages.get(page)
            view[start:stop] = stored[at : at + stop - start] if stored else bytes(stop - start)
        self._position += len(view)
        return len(view)

    def write(self, data) -> int:
        """Write `data` at the position."""
        view = memoryview(data).cast("B")
        for start, stop, page, at in self._spans(len(view)):
            self._pages.setdefault(page, bytearray(_PAGE))[at : at + stop - start] = view[start:stop]
        self._position += len(view)
        self.size = max(self.size, self._position)
        return len(view)

    def pieces(self) -> list[tuple[int, memoryview]]:
        """Return what was written, as (offset, bytes) in ascending order."""
        whole = ((page * _PAGE, self._pages[page]) for page in sorted(self._pages))
        return [(offset, memoryview(page)[: self.size - offset]) for offset, page in whole if offset < self.size]

    def _spans(self, count: int):
        start = 0
        while start < count:
            page, at = divmod(self._position + start, _PAGE)
            stop = min(count, start + _PAGE - at)
            yield start, stop, page, at
            start = stop


class LatchedFile(MemoryFile):
    """A file on disk that takes every write and keeps the first error for later."""

    def __init__(self, descriptor: int):
        super().__init__()
        self.error: OSError | None = None
        self._descriptor, self._unsynced = descriptor, 0

    def truncate(self, size: int) -> int:
        """Set the size of the file."""
        self._latched(os.ftruncate, self._descriptor, size)
        return super().truncate(size)

    def readinto(self, out) -> int:
        """Fill `out` from the position on, with zeros beyond the end."""
        view = memoryview(out).cast("B")
        got = self._latched(os.preadv, self._descriptor, [view], self._position) or 0
        view[got:] = bytes(len(view) - got)
        self._position += len(view)
        return len(view)

    def write(self, data) -> int:
        """Write `data` at the position."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and not self.error:
            done += self._latched(os.pwrite, self._descriptor, view[done:], self._position + done) or 0
        self._position += len(view)
        self._unsynced += len(view)
        if self._unsynced >= SYNC_BYTES:
            self._latched(os.fdatasync, self._descriptor)
            self._unsynced = 0
        self.size = max(self.size, self._position)
        return len(view)

    def _latched(self, call, *arguments):
        try:
            return call(*arguments)
        except OSError as error:
            self.error = self.error or error
            return None
