"""Builds the lab from Debian's packages and keeps it in a cache.

    $XEN_LAB/  (default ~/.cache/xen-netfront/lab)
        debs-KEY/      the packages, as downloaded
        images-KEY/    xen         the hypervisor, a multiboot ELF
                       vmlinux     Debian's kernel, for dom0 and the reference guest
                       dom0.cpio   dom0's programs, libraries and modules
                       linux.cpio  the reference guest's
        qemu-7.2/      QEMU unpacked, where another version is installed
        logs/          what the runs printed

KEY is a hash of the files a folder is made by, so that a change of them makes
the folder anew. A folder appears by renaming a finished one: an interrupted
build leaves nothing that looks finished. What differs from run to run (init,
tests, guest images) is no part of the cache: machine.py adds it.
"""

import contextlib
import fcntl
import gzip
import hashlib
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cpio import Archive

HERE = Path(__file__).resolve().parent
APT = HERE / "apt.sh"
XEN_VERSION = "4.17"
XEN_BIN = f"usr/lib/xen-{XEN_VERSION}/bin"
LIBRARIES = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
KEEP_SECONDS = 14 * 24 * 3600

# Each before those that need it.
VLAN_MODULES = "llc stp garp mrp 8021q".split()
DOM0_MODULES = [
    *"xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc xen-netback".split(), *VLAN_MODULES,
]
DOM0_PROGRAMS = [
    *(f"{XEN_BIN}/{name}" for name in (
        "xl xenstored xenconsoled xenconsole xen-init-dom0 libxl-save-helper"
        " xenstore-control lsevtchn xenctx").split()),
    *(f"usr/bin/xenstore-{name}" for name in "ls read write list rm watch exists".split()),
    "bin/bash", "usr/bin/iperf", "usr/bin/iperf3", "usr/bin/tcpdump", "usr/bin/python3.11",
    "usr/sbin/dnsmasq", "sbin/ethtool",
]  # fmt: skip
# Python's library is 30 MB, most of which no small tool needs: what it starts with is built in but
# for these.
PYTHON_FILES = [
    f"usr/lib/python3.11/encodings/{name}.py" for name in ("__init__", "aliases", "utf_8")
]
# The last two are for a Linux that serves others.
LINUX_MODULES = ["xen-netfront", *VLAN_MODULES, "xen-netback", "bridge"]
LINUX_PROGRAMS = ["usr/bin/iperf", "usr/bin/iperf3", "usr/bin/tcpdump", "sbin/ethtool"]


class LabError(Exception):
    """The lab cannot be built or started; the message says why."""


class Lab:
    """A finished lab: where its files are and how QEMU is started."""

    def __init__(self, root, images, qemu):
        self.root = root
        self.images = images
        self.qemu = qemu
        self.logs = root / "logs"


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def default_root():
    if os.environ.get("XEN_LAB"):
        return Path(os.environ["XEN_LAB"]).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "xen-netfront/lab"


def ready_lab():
    """The lab, built now if the cache does not hold it."""
    root = default_root()
    debs_key = key_of(["packages"])
    images_key = key_of(["packages", "cache.py", "cpio.py"])
    images = root / f"images-{images_key}"
    (root / "logs").mkdir(parents=True, exist_ok=True)
    with _locked(root):
        if not images.exists():
            say(f"building in {root}, once; takes about a minute")
            for leftover in root.glob("building-*"):
                shutil.rmtree(leftover)
            debs = root / f"debs-{debs_key}"
            _build(debs, download_packages)
            _build(images, lambda folder: make_images(debs, folder))
            os.utime(debs)
        os.utime(images)
        qemu = ready_qemu(root)
        _remove_unused(root)
    return Lab(root, images, qemu)


def key_of(names):
    digest = hashlib.sha256()
    for name in names:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _locked(root):
    """Keeps two runs from building at once; the kernel drops it if we die."""
    with open(root / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is building the lab: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder, make):
    if folder.exists():
        return
    building = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
    try:
        make(building)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _remove_unused(root):
    """Other checkouts share the cache, so only what has long been unused goes."""
    for path in [*root.glob("debs-*"), *root.glob("images-*"), *root.glob("logs/*")]:
        if time.time() - path.stat().st_mtime > KEEP_SECONDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- Packages -----------------------------------------------------------------


def download_packages(folder):
    lines = (HERE / "packages").read_text().splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    say(f"downloading {len(names)} Debian packages (unpacked for the lab, not installed)")
    # The kernel's package carries its version in its name. The package that
    # always depends on the newest one says which that is.
    run([APT, "download", "linux-image-amd64"], cwd=folder)
    meta = next(folder.glob("linux-image-amd64_*.deb"))
    depends = _output(["dpkg-deb", "-f", meta, "Depends"])
    kernel = re.search(r"linux-image-[0-9]\S*", depends).group()
    names = [kernel if name == "@kernel" else name for name in names]
    run([APT, "download", *names], cwd=folder)
    meta.unlink()


def make_images(debs, folder):
    sysroot = folder / "sysroot"
    packages = sorted(debs.glob("*.deb"))
    say(f"unpacking {len(packages)} packages")
    for deb in packages:
        run(["dpkg-deb", "-x", deb, sysroot])
    (folder / "xen").write_bytes(
        gzip.decompress((sysroot / f"boot/xen-{XEN_VERSION}-amd64.gz").read_bytes()))
    say("unpacking the kernel")
    vmlinuz = next((sysroot / "boot").glob("vmlinuz-*"))
    (folder / "vmlinux").write_bytes(unpack_kernel(vmlinuz.read_bytes()))
    say("collecting what dom0 and the reference guest run")
    dom0 = make_root(sysroot, DOM0_PROGRAMS, DOM0_MODULES)
    # xl ends its threads by pthread_cancel, which loads this one at run time.
    add_library(dom0, sysroot, "libgcc_s.so.1")
    for path in PYTHON_FILES:
        dom0.file(path, (sysroot / path).read_bytes())
    (folder / "dom0.cpio").write_bytes(dom0.to_bytes())
    linux = make_root(sysroot, LINUX_PROGRAMS, LINUX_MODULES)
    (folder / "linux.cpio").write_bytes(linux.to_bytes())
    shutil.rmtree(sysroot)


def unpack_kernel(image):
    """The ELF inside a bzImage: unpacking it under emulation would take seconds.

    Its place is in the setup header (Linux, Documentation/arch/x86/boot.rst).
    """
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not payload.startswith(b"\xfd7zXZ\0"):
        raise LabError("Debian's kernel is no longer packed by xz")
    return lzma.LZMADecompressor().decompress(payload)


# --- Root file systems --------------------------------------------------------


def make_root(sysroot, programs, modules):
    root = Archive()
    for path in "proc sys dev run tmp root etc var/log/xen/console var/lib/xen".split():
        root.folder(path)
    root.folder("var/lib/xenstored")
    root.link("var/run", "/run")
    busybox = sysroot / "bin/busybox"
    root.file("bin/busybox", busybox.read_bytes(), executable=True)
    for applet in _output([busybox, "--list"]).split():
        if applet != "busybox":
            root.link(f"bin/{applet}", "busybox")
    for name in modules:
        found = list(sysroot.glob(f"lib/modules/*/kernel/**/{name}.ko"))
        if not found:
            raise LabError(f"Debian's kernel has no module {name}")
        root.file(f"modules/{name}.ko", found[0].read_bytes())
    loader = "ld-linux-x86-64.so.2"
    root.file(f"lib64/{loader}", _library(sysroot, loader).read_bytes(), executable=True)
    for program in programs:
        path = sysroot / program
        root.file(program, path.read_bytes(), executable=True)
        for library in libraries_of(sysroot, path):
            add_library(root, sysroot, library)
    return root


def libraries_of(sysroot, program):
    """Asks the unpacked dynamic loader itself, with the unpacked libraries only."""
    where = ":".join(str(sysroot / folder) for folder in LIBRARIES)
    listing = _output(
        [_library(sysroot, "ld-linux-x86-64.so.2"), "--inhibit-cache", "--library-path", where,
         "--list", program])  # fmt: skip
    names = []
    for line in listing.splitlines():
        name, arrow, target = line.strip().partition(" => ")
        # The host's own libraries are found last; they would be the wrong ones.
        if arrow and not target.startswith(str(sysroot)) and "ld-linux" not in name:
            raise LabError(f"{program.name} needs library {name}: add its package to packages")
        if arrow and "ld-linux" not in name:
            names.append(name)
    return names


def add_library(root, sysroot, name):
    root.file(f"lib/{name}", _library(sysroot, name).read_bytes(), executable=True)


def _library(sysroot, name):
    for folder in LIBRARIES:
        if (sysroot / folder / name).exists():
            return sysroot / folder / name
    raise LabError(f"library {name} is in none of the packages")


# --- QEMU ---------------------------------------------------------------------


def ready_qemu(root):
    """QEMU's command line so far: Debian 12's own 7.2.

    QEMU 10 of the backports does not run SVM guests: each read of a control
    register leaves the guest with the wrong exit code. So where another version
    is installed, 7.2 is unpacked beside it, and the host is left as it is.
    """
    program = "qemu-system-x86_64"
    run([APT, "need", program, "qemu-system-x86/bookworm", "seabios"])
    if "version 7.2." in _output([program, "--version"]):
        return [program]
    unpacked = root / "qemu-7.2"
    _build(unpacked, unpack_qemu)
    missing = [
        line.split()[0]
        for line in _output(["ldd", unpacked / "usr/bin" / program]).splitlines()
        if "not found" in line
    ]
    if missing:
        raise LabError(f"QEMU 7.2 needs libraries this machine lacks: {' '.join(missing)}")
    command = [str(unpacked / "usr/bin" / program)]
    for firmware in "share/qemu", "share/seabios", "lib/ipxe/qemu":
        command += ["-L", str(unpacked / "usr" / firmware)]
    return command


def unpack_qemu(folder):
    say("another QEMU is installed: downloading 7.2 to unpack it for the lab")
    parts = "qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu".split()
    run([APT, "download", *(f"{part}/bookworm" for part in parts)], cwd=folder)
    for deb in folder.glob("*.deb"):
        run(["dpkg-deb", "-x", deb, folder])
        deb.unlink()


def run(command, **options):
    result = subprocess.run([str(part) for part in command], **options)
    if result.returncode:
        raise LabError(f"failed: {' '.join(str(part) for part in command)}")


def _output(command):
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise LabError(f"failed: {' '.join(str(part) for part in command)}")
    return result.stdout
