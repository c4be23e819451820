"""A file system of its own on a loop device over a file: ext4 or xfs. Knows no broker.

Mounts are in a namespace of this process (`image.enter_namespace`), so the kernel undoes them when it ends.
"""

import os
from pathlib import Path

import install
from image import run

TOOLS = {"ext4": ("losetup", "mount", "umount", "mkfs.ext4"), "xfs": ("losetup", "mount", "umount", "mkfs.xfs")}


def demand(file_system):
    """Raises `install.Missing` where this machine cannot."""
    install.DEBIAN_PACKAGES.setdefault("mkfs.xfs", ["xfsprogs"])
    install.loop_devices(TOOLS[file_system])


class LoopDisk:
    """Mounted at `dir` within the `with`."""

    def __init__(self, folder, file_system, size_bytes):
        self.place = Path(folder) / f"disk-{file_system}"
        self.file_system, self.size_bytes = file_system, size_bytes
        self.dir = self.place / "mounted"
        self.device = None

    def __enter__(self):
        self.dir.mkdir(parents=True)
        file = self.place / "image"
        with open(file, "wb") as image:
            os.truncate(image.fileno(), self.size_bytes)
        try:
            # Nothing is written later in the background.
            lazy = ["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"] if self.file_system == "ext4" else ["-K"]
            force = "-F" if self.file_system == "ext4" else "-f"
            run(f"mkfs.{self.file_system}", "-q", force, *lazy, file)
            self.device = run("losetup", "--find", "--show", "--direct-io=on", file)
            run("mount", "-o", "noatime", self.device, self.dir)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if os.path.ismount(self.dir):
            run("umount", "--lazy", self.dir)
        if self.device:
            run("losetup", "--detach", self.device)
        (self.place / "image").unlink(missing_ok=True)
        self.dir.rmdir()
        self.place.rmdir()
