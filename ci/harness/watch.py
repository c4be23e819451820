"""What the kernel tells of a process: memory, descriptors, threads; and how much is stored below a directory.

It knows no broker, and judges nothing.
"""

import os
from pathlib import Path

MIB = 1 << 20


class Process:
    def __init__(self, pid):
        self.pid = pid
        self.folder = Path(f"/proc/{pid}")

    def _status(self, name):
        for line in (self.folder / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise KeyError(name)

    def resident_bytes(self):
        return self._status("VmRSS") << 10

    def resident_bytes_peak(self):
        """The most that was resident since the start, or since `forget_peak`."""
        return self._status("VmHWM") << 10

    def forget_peak(self):
        (self.folder / "clear_refs").write_text("5")

    def threads(self):
        return self._status("Threads")

    def descriptors(self):
        """What each open descriptor refers to."""
        found = []
        for entry in os.scandir(self.folder / "fd"):
            try:
                found.append(os.readlink(entry.path))
            except FileNotFoundError:
                # Closed meanwhile.
                continue
        return found

    def sockets(self):
        return sum(name.startswith("socket:") for name in self.descriptors())

    def nofile(self):
        """Soft and hard limit of open files."""
        for line in (self.folder / "limits").read_text().splitlines():
            if line.startswith("Max open files"):
                soft, hard = line.split()[3:5]
                return int(soft), int(hard)
        raise KeyError("Max open files")


def bytes_stored(folder):
    """Blocks allocated to the files below `folder`; files may come and go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def percentile(values, percent):
    """Of a sorted list that is not empty."""
    return values[min(len(values) - 1, len(values) * percent // 100)]
