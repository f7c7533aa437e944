"""How much memory a piece of work took at most."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Final

import torch

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")


class PeakMemory:
    """The peak of memory since it was made: of the GPU if there is one, else of this process.

    Where the operating system cannot start the count anew, it is the peak since the process began.

    Examples
    --------
    >>> PeakMemory().read() > 0
    True
    """

    def __init__(self) -> None:
        self.gpu = torch.cuda.is_available()
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _CLEAR.write_text("5")  # Linux: the high-water mark of resident memory starts anew
        except OSError:
            return

    def read(self) -> int:
        """Return the peak in bytes."""
        if self.gpu:
            return int(torch.cuda.max_memory_allocated())
        if _STATUS.exists():
            found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
            if found:
                return int(found[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
