"""Writes cpio archives of the "newc" kind, the one Linux unpacks as initramfs.

Linux accepts several archives one after the other, later ones adding to earlier
ones: the lab's Debian files are archived once, what a run adds is small.
"""

import os
import stat


class Archive:
    """A file tree in memory: path -> (mode, bytes). Parents come by themselves."""

    def __init__(self):
        self.entries = {}

    def folder(self, path):
        path = path.strip("/")
        while path and path not in self.entries:
            self.entries[path] = (stat.S_IFDIR | 0o755, b"")
            path = os.path.dirname(path)

    def file(self, path, data, executable=False):
        path = path.strip("/")
        self.folder(os.path.dirname(path))
        self.entries[path] = (stat.S_IFREG | (0o755 if executable else 0o644), data)

    def link(self, path, target):
        path = path.strip("/")
        self.folder(os.path.dirname(path))
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def to_bytes(self):
        out = bytearray()
        # Sorted, a folder comes before what is in it.
        for number, path in enumerate(sorted(self.entries), start=1):
            mode, data = self.entries[path]
            _append(out, number, path, mode, data)
        _append(out, 0, "TRAILER!!!", 0, b"")
        return bytes(out)


def _append(out, inode, path, mode, data):
    name = path.encode() + b"\0"
    # inode mode uid gid nlink mtime filesize dev(2) rdev(2) namesize check
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)
