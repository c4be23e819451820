"""A small ext4 or xfs file system of its own, on a loop device over a file, for what one does not do to the machine's disk.

It knows no broker. The kernel undoes everything when this process ends, however it ends: mounts are in a namespace of our
own (`enter_namespace`), the loop device detaches itself with its last user, and its file has no name.
"""

import fcntl
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paths import TARGET

TOOLS = ("losetup", "mount", "umount", "mkfs.ext4", "e2fsck", "filefrag", "unshare", "setpriv")
XFS_TOOLS = ("mkfs.xfs",)
# Smaller ones mkfs.xfs refuses to make.
XFS_MIB_MIN = 300
IN_NAMESPACE = "--in-namespace"
MIB = 1 << 20
BLOCK = 4096
# _IOR('X', 125, __u32) of both, and the flag that writes nothing more: from now on everything fails.
IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2


def enter_namespace():
    """Runs this program again where what it mounts is seen by nobody else, and gone when it ends."""
    if IN_NAMESPACE in sys.argv:
        sys.argv.remove(IN_NAMESPACE)
        return
    again = [sys.executable, *sys.argv, IN_NAMESPACE]
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])


def run(*command, codes=(0,)):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


class Image:
    """A file system of `mib` MiB at `self.dir`, `kind` is ext4 or xfs.

    `errors` is what ext4 does after an error of its own. With `thin_mib` only so much of it can ever be written: the device
    promises more than it has.
    """

    def __init__(self, name, mib, errors="remount-ro", thin_mib=None, kind="ext4"):
        TARGET.mkdir(exist_ok=True)
        self.place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=TARGET))
        self.dir = self.place / "mounted"
        self.dir.mkdir()
        self.kind = kind
        self.errors = errors
        self.thin = None
        self.backing = self.loop = self.device = None
        try:
            self._attach(mib, thin_mib)
        except BaseException:
            self.remove()
            raise

    def _attach(self, mib, thin_mib):
        file = self.place / "image"
        if thin_mib:
            self.thin = self.place / "thin"
            self.thin.mkdir()
            run("mount", "-t", "tmpfs", "-o", f"size={thin_mib}M", "tmpfs", self.thin)
            file = self.thin / "image"
        self.backing = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.ftruncate(self.backing, mib * MIB)
        self._make_file_system(file)
        # Direct, so that a read behind the end of the file is an error and no zeros.
        direct = [] if thin_mib else ["--direct-io=on"]
        self.device = run("losetup", "--find", "--show", *direct, file)
        self.loop = os.open(self.device, os.O_RDONLY)
        # Not while it is open: when its last user is gone.
        run("losetup", "--detach", self.device)
        file.unlink()
        self.mount()

    def _make_file_system(self, file):
        if self.kind == "xfs":
            return run("mkfs.xfs", "-q", "-f", "-K", "-b", f"size={BLOCK}", file)
        # Nothing is written later in the background, and nothing is kept for root.
        lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        return run("mkfs.ext4", "-q", "-F", "-b", BLOCK, "-m", 0, "-J", "size=8", "-E", lazy, file)

    def mount(self):
        options = "noatime" if self.kind == "xfs" else f"errors={self.errors},noatime"
        run("mount", "-t", self.kind, "-o", options, self.device, self.dir)

    def umount(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                return run("umount", self.dir)
            except AssertionError:
                # The I/O of a killed process may outlive it.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def mount_again(self):
        """As after a start of the machine: what the last errors left is put in order."""
        self.umount()
        if self.kind == "ext4":
            run("e2fsck", "-p", self.device, codes=(0, 1))
        # xfs replays its log with the mount.
        self.mount()

    def free(self):
        stat = os.statvfs(self.dir)
        return stat.f_bavail * stat.f_frsize

    def take(self, name, left=0):
        """Somebody else's file, as large as leaves `left` bytes free."""
        path = self.dir / name
        with open(path, "wb") as file:
            step = self.free()
            while (more := self.free() - left) > 0 and step >= BLOCK:
                try:
                    size = os.fstat(file.fileno()).st_size
                    os.posix_fallocate(file.fileno(), size, max(min(step, more), BLOCK))
                except OSError:
                    step //= 2
        return path

    def make_read_only(self):
        """What ext4 does to itself after an error of its own."""
        Path(f"/sys/fs/ext4/{Path(self.device).name}/trigger_fs_error").write_text("a test")

    def shut_down(self):
        """Everything fails with EIO from now on, as where the device is gone."""
        fd = os.open(self.dir, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)

    def give_more(self, mib):
        """The device gets what it promised."""
        run("mount", "-o", f"remount,size={mib}M", self.thin)

    def stretch(self, path):
        """Where on the device the file begins, and where it ends; None for an empty one."""
        # ext: logical: physical: length:
        extents = []
        for line in run("filefrag", f"-b{BLOCK}", "-v", path).splitlines():
            parts = line.replace("..", " ").replace(":", " ").split()
            if parts and parts[0].isdigit():
                extents.append((int(parts[3]), int(parts[4])))
        if not extents:
            return None
        return min(e[0] for e in extents) * BLOCK, (max(e[1] for e in extents) + 1) * BLOCK

    def cut_off(self, position):
        """The device cannot be read from `position` on. Gives what mends it again."""
        size = os.fstat(self.backing).st_size
        kept = os.pread(self.backing, size - position, position)
        os.ftruncate(self.backing, position)

        def mend():
            os.pwrite(self.backing, kept, position)
            os.fsync(self.backing)

        return mend

    def remove(self):
        for mounted in (self.dir, self.thin):
            if mounted and os.path.ismount(mounted):
                if mounted == self.thin:
                    self._close()
                run("umount", "--lazy", mounted)
        self._close()
        for folder in (self.dir, self.thin, self.place):
            if folder:
                try:
                    folder.rmdir()
                except OSError as error:
                    print(f"cannot remove {folder}: {error}", file=sys.stderr)

    def _close(self):
        for fd in (self.loop, self.backing):
            if fd is not None:
                os.close(fd)
        self.loop = self.backing = None


def why_no_xfs():
    """What stands in the way of xfs on this machine; None where nothing does."""
    try:
        Image("xfs", XFS_MIB_MIN, kind="xfs").remove()
        return None
    except (AssertionError, OSError) as error:
        return str(error)
