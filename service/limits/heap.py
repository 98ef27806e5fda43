"""Freed memory goes back to the system, also from the middle of the heap.

By itself glibc returns what is free at the end of a heap alone: one small object that lives on
above finished uploads keeps all of their pages. With another C library nothing is done.
"""

import ctypes
from typing import Any

_WORTH_BYTES = 32 * 2**20  # a trim takes milliseconds, in which others may wait to allocate


class Heap:
    """The heap of this process, for one thread at a time."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(None)
        self._known = all(hasattr(self._library, name) for name in ("mallinfo2", "malloc_trim"))
        if self._known:
            self._library.mallinfo2.restype = _Mallinfo
        self._free_before = 0

    def trim(self) -> None:
        """Return what is free, if that is much more than the last time."""
        if not self._known:
            return
        # Free memory whose pages have been returned still counts as free.
        self._free_before = min(self._free_before, self._free())
        if self._free() >= self._free_before + _WORTH_BYTES:
            self._library.malloc_trim(0)
            self._free_before = self._free()

    def _free(self) -> int:
        free: int = self._library.mallinfo2().fordblks
        return free


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    )
