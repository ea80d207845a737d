"""One machine: Xen with dom0 in QEMU, and its two serial lines."""

import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

from cache import HERE, say
from cpio import Archive

DOM0_MB = 768
XEN_AND_GUESTS_MB = 1024
BOOT_SECONDS = 120

# The models "max" and "EPYC" offer what Xen cannot use under emulation (SMAP,
# MONITOR, AVX); this one boots. Without npt no guest runs: Debian builds Xen
# without shadow paging.
CPU = "qemu64,+svm,+npt,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+fsgsbase,+rdrand,+pdpe1gb,+arat"
# guest_loglvl=all lets what guests write to port 0xe9 through.
XEN_OPTIONS = (
    f"console=com1 com1=115200 dom0_mem={DOM0_MB}M spec-ctrl=no xpti=no"
    " loglvl=warning guest_loglvl=all"
)
DOM0_OPTIONS = "console=hvc0 panic=1 mitigations=off loglevel=4"


class Setup:
    """What one boot brings into dom0 beside the lab's own files."""

    def __init__(self, lab, dom0_vcpus=1, guests_mb=0):
        self.lab = lab
        self.dom0_vcpus = dom0_vcpus
        self.memory = DOM0_MB + max(XEN_AND_GUESTS_MB, guests_mb + 256)
        self.files = Archive()
        self.config = {}
        for name in "lib", "traffic", "backend", "udp-exchange", "run-tests", "shellrc":
            self.add(f"lab/{name}", HERE / "dom0" / name)
        self.add("init", HERE / "dom0/init")
        self.add("etc/xen/scripts/vif-lab", HERE / "dom0/vif-lab")
        self.files.folder("lab/images")

    def add(self, path, source):
        self.files.file(path, Path(source).read_bytes(), executable=os.access(source, os.X_OK))

    def add_image(self, name, kernel):
        """`kernel` is a PVH ELF; "linux", the reference guest, is the lab's."""
        if name == "linux":
            self.add("lab/images/linux", self.lab.images / "vmlinux")
            init = Archive()
            init.file("init", (HERE / "linux/init").read_bytes(), executable=True)
            ramdisk = (self.lab.images / "linux.cpio").read_bytes() + init.to_bytes()
            self.files.file("lab/images/linux.initrd", ramdisk)
        else:
            self.add(f"lab/images/{name}", kernel)

    def initrd(self):
        config = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in self.config.items())
        self.files.file("lab/config", config.encode())
        return (self.lab.images / "dom0.cpio").read_bytes() + self.files.to_bytes()


class Machine:
    """QEMU running; use as a context manager, so that it ends with its user.

    The line "xen" is Xen's console, "dom0" the test channel of dom0/init, and
    "qemu" what QEMU itself complains of. All go to the log, with the seconds
    since the start.
    """

    def __init__(self, setup, log, verbose=False):
        self.log = log
        self.verbose = verbose
        self.started = time.monotonic()
        # A file in memory: there is nothing to clean up, however we end.
        initrd = os.memfd_create("initrd")
        with open(initrd, "wb", closefd=False) as file:
            file.write(setup.initrd())
        xen, xen_end = socket.socketpair()
        self.dom0, dom0_end = socket.socketpair()
        command = [
            # Should this program be killed, QEMU goes with it.
            "setpriv", "--pdeathsig", "KILL", *setup.lab.qemu,
            # One emulated processor, in one thread: all boots came up that way;
            # with two, now and then one did not.
            "-accel", "tcg,thread=single", "-smp", "1", "-M", "pc", "-cpu", CPU,
            "-m", str(setup.memory), "-nodefaults", "-display", "none", "-no-reboot",
            "-chardev", f"socket,id=xen,fd={xen_end.fileno()}", "-serial", "chardev:xen",
            "-chardev", f"socket,id=dom0,fd={dom0_end.fileno()}", "-serial", "chardev:dom0",
            "-kernel", "xen",
            "-append", f"{XEN_OPTIONS} dom0_max_vcpus={setup.dom0_vcpus}",
            # The multiboot modules: a comma separates them, a space ends the name.
            "-initrd", f"vmlinux {DOM0_OPTIONS},/proc/self/fd/{initrd}",
        ]  # fmt: skip
        self.qemu = subprocess.Popen(
            command,
            cwd=setup.lab.images,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(xen_end.fileno(), dom0_end.fileno(), initrd),
        )
        os.close(initrd)
        xen_end.close()
        dom0_end.close()
        self.open = {"xen": xen, "dom0": self.dom0, "qemu": self.qemu.stdout}
        self.partial = dict.fromkeys(self.open, b"")
        self.ready = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.qemu.kill()
        self.qemu.wait()

    def seconds(self):
        return time.monotonic() - self.started

    def line(self, deadline):
        """The next (source, text), or None at `deadline` or when QEMU has ended."""
        while not self.ready:
            left = deadline - time.monotonic()
            if left <= 0 or not self.open:
                return None
            self._read(left)
        return self.ready.pop(0)

    def _read(self, seconds):
        readable, _, _ = select.select(self.open.values(), [], [], seconds)
        for source in [name for name, file in self.open.items() if file in readable]:
            try:
                data = os.read(self.open[source].fileno(), 65536)
            except ConnectionResetError:
                data = b""
            if data:
                *lines, self.partial[source] = (self.partial[source] + data).split(b"\n")
            else:
                del self.open[source]
                lines = [self.partial[source]] if self.partial[source] else []
            for raw in lines:
                text = _printable(raw)
                self.log.write(f"{self.seconds():8.2f} {source:4} {text}\n")
                if self.verbose:
                    print(f"  {self.seconds():7.2f} {source:4} {text}", flush=True)
                self.ready.append((source, text))
        self.log.flush()

    def wait_ready(self):
        """Whether dom0 came up; `self.seen` is what was printed on the way."""
        self.seen = []
        deadline = time.monotonic() + BOOT_SECONDS
        while (item := self.line(deadline)) is not None:
            self.seen.append(item)
            if item == ("dom0", "@@ READY"):
                return True
        return False

    def interact(self):
        """Joins the terminal to dom0's shell until that ends."""
        ours, theirs = sys.stdin.fileno(), self.dom0.fileno()
        saved = termios.tcgetattr(ours) if os.isatty(ours) else None
        inputs = [ours, theirs, self.open["xen"].fileno(), self.open["qemu"].fileno()]
        tail = b""
        try:
            if saved:
                tty.setraw(ours)
            while True:
                for fd in select.select(inputs, [], [])[0]:
                    if fd == theirs:
                        data = os.read(fd, 4096)
                        tail = (tail + data)[-16:]
                        if not data or b"@@ DONE" in tail:
                            return
                        os.write(sys.stdout.fileno(), data)
                    elif fd == ours:
                        data = os.read(fd, 4096)
                        if data:
                            self.dom0.sendall(data)
                        else:
                            inputs.remove(ours)
                    elif not os.read(fd, 4096):
                        inputs.remove(fd)
        finally:
            if saved:
                termios.tcsetattr(ours, termios.TCSADRAIN, saved)


def booted(setup, log, verbose):
    """A machine whose dom0 is up, or None. A boot is tried twice; what runs in it,
    once."""
    for attempt in 1, 2:
        machine = Machine(setup, log, verbose)
        try:
            if machine.wait_ready():
                say(f"Xen and dom0 are up after {machine.seconds():.1f} s")
                return machine
        except BaseException:
            machine.__exit__()
            raise
        machine.__exit__()
        say(f"boot {attempt} of at most 2: dom0 did not come up")
        if not verbose:
            show(machine.seen[-30:])
    return None


def show(lines):
    for source, text in lines:
        # Xen tells of each part of a new guest's state; the log has that.
        if not re.match(r"\(XEN\) HVM ?d?\d+(v\d+)? (save|restore): ", text):
            print(f"    {source:4} {text}")
    sys.stdout.flush()


def end_on_sigterm():
    """Makes SIGTERM an exception, for the cleaning up to happen."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _printable(raw):
    """A guest may write anything; a terminal should not be made to act on it."""
    text = raw.decode("utf-8", "replace").rstrip("\r")
    return "".join(c if c.isprintable() or c == "\t" else "." for c in text)
