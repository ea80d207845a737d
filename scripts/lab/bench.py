"""Our guest beside Linux's, served by the same netback in the same boot: `scripts/xen bench`. Our backend
beside Linux's, each in a driver domain that serves a Linux guest: `scripts/xen bench backend`.

    bench.py            builds what is needed, boots, follows what dom0 says
    bench_table.py      makes a table of that
    dom0/bench          the rounds: a guest is built, booted, measured, destroyed; ours, Linux, ...
    dom0/bench-backend  the same with a backend domain, and its client
    dom0/bench-lib      how something is measured
    dom0/bench-xen      a domain's CPU time; the first ping after it is unpaused
    bench/              the clients in dom0, and the services of the Linux guest, in Rust
    linux/              bench-init, the Linux guest's first process; backend-init, the Linux backend's
"""

import gzip
import json
import os
import re
import struct
import subprocess
import tarfile
import time
from pathlib import Path

import cache
import tests
from bench_table import BACKEND_ROWS, LINUX, MEMORY, ROWS, SIZE, Values, table
from cache import APT, HERE, LabError, say
from cpio import Archive
from machine import Setup, booted, show

# A boot (of a backend and its client, two), an answer to ping and what lies between transfers, at most;
# and the search for the least memory, most of which is waiting for guests that have too little.
SECONDS_PER_GUEST = 240
MEMORY_SECONDS = 1500
TRANSFERS = 3
PINGS = 300
LINES_SHOWN = 80
HOST = "x86_64-unknown-linux-gnu"


class Guest:
    """The image echo beside a Linux guest, both served by dom0."""

    ours = "echo"
    script = "bench"
    # Seconds of a transfer with --smoke, and of one either way before what is measured, at most.
    smoke_seconds = 1
    warm_up = 2
    told = "either guest has one vCPU and {memory} MB, dom0 one vCPU"

    def rows(self, smoke):
        return [*ROWS, SIZE] if smoke else [*ROWS, MEMORY, SIZE]

    def add_linux(self, _setup, _lab):
        """There is one that serves itself."""


class Backend:
    """The image backend beside a Linux guest that bridges, each serving a Linux guest."""

    ours = "backend"
    script = "bench-backend"
    # What the emulated processor runs has four domains to cross.
    smoke_seconds = 3
    warm_up = 4
    told = "either backend has one vCPU and {memory} MB, its client and dom0 one vCPU"

    def rows(self, _smoke):
        return BACKEND_ROWS

    def add_linux(self, setup, lab):
        modules = [f"modules/{name}.ko" for name in "llc stp bridge xen-netfront xen-netback".split()]
        applets = "sh mount insmod brctl ip echo usleep".split()
        init = HERE / "linux/backend-init"
        setup.add("lab/images/linux-backend", lab.images / "vmlinux")
        setup.files.file("lab/images/linux-backend.initrd", linux_root(lab, applets, modules, init).to_bytes())


def run(args, open_log, result):
    """The command. What is found wrong is in `result`."""
    subject = Backend() if args.what == "backend" else Guest()
    rounds, seconds, pings = args.rounds, args.seconds, PINGS
    if args.smoke:
        rounds, seconds, pings = 1, subject.smoke_seconds, 20
    kernel = Path(tests.build_image(subject.ours))
    lab = cache.ready_lab()
    program = build_program()
    linux = linux_ramdisk(lab, program)
    setup = Setup(lab, guests_mb=args.memory)
    setup.add_image(subject.ours, kernel)
    setup.add("lab/images/linux", lab.images / "vmlinux")
    setup.files.file("lab/images/linux.initrd", linux)
    subject.add_linux(setup, lab)
    setup.add("lab/bench", program)
    for name in "bench-xen", "bench-lib":
        setup.add(f"lab/{name}", HERE / "dom0" / name)
    setup.add("lab/tests/bench", HERE / "dom0" / subject.script)
    limit = rounds * 2 * (SECONDS_PER_GUEST + TRANSFERS * seconds) + MEMORY_SECONDS
    setup.config = {
        "TESTS": f"bench:{limit}",
        "ROUNDS": rounds,
        "LENGTH": seconds,
        "WARM_UP": min(seconds, subject.warm_up),
        "PINGS": pings,
        "MEMORY": args.memory,
        "LEAST_MEMORY": 0 if args.smoke else 1,
    }
    values = Values(subject.ours)
    values.add(0, subject.ours, "image.bytes", image_size(kernel))
    values.add(0, LINUX, "image.bytes", linux_size(linux))
    test = tests.Test("bench", "", list(values.images), timeout=limit)
    with open_log(lab, args) as log:
        follow(setup, test, log, args.verbose, values, result)

    rows = subject.rows(args.smoke)
    for number in range(1, rounds + 1):
        for image in values.images:
            ok = values.all_crossed(number, image)
            result.report("PASS" if ok else "FAIL", test,
                          f"round {number}, {image}: what was moved has crossed the vif")  # fmt: skip
    for row in rows:
        ok = values.is_sound(row, rounds)
        result.report("PASS" if ok else "FAIL", test, f"measured: {row.name}")
    print(f"\n{table(values, rows)}\n\n{rounds} rounds, {seconds} s for each transfer;"
          f" {subject.told.format(memory=args.memory)}.")  # fmt: skip


def follow(setup, test, log, verbose, values, result):
    """Boots, and takes what dom0 says until the bench has come to its end."""
    machine = booted(setup, log, verbose)
    if machine is None:
        raise LabError("Xen does not boot")
    lines, ended, failed = [], False, result.failed
    deadline = time.monotonic() + test.timeout + tests.CLEANUP_SECONDS
    with machine:
        while not ended and (item := machine.line(deadline)) is not None:
            lines.append(item)
            source, text = item
            found = re.fullmatch(r"@@ (DATA|PASS|FAIL|NOTE|END) (.*)", text)
            if source != "dom0" or not found:
                continue
            kind, rest = found.groups()
            if kind == "DATA":
                number, image, name, value = rest.split()
                values.add(int(number), image, name, float(value))
            elif kind == "NOTE":
                say(rest)
            elif kind == "END":
                ended = True
            else:
                result.report(kind, test, rest)
    if not ended:
        result.report("FAIL", test, "Xen and dom0 live to its end")
    if result.failed > failed and not verbose:
        show(lines[-LINES_SHOWN:])


# --- What is booted -----------------------------------------------------------


def build_program():
    """The package xen-bench as one file that needs no library, in the guest's bare root."""
    cache.run([APT, "need", "cc", "gcc", "libc6-dev"])
    say("cargo build -p xen-bench")
    static = f"CARGO_TARGET_{HOST.upper().replace('-', '_')}_RUSTFLAGS"
    build = subprocess.run(
        ["cargo", "build", "--release", "-p", "xen-bench", "--target", HOST,
         "--message-format", "json-render-diagnostics"],
        cwd=HERE.parent.parent, stdout=subprocess.PIPE, text=True,
        env={**os.environ, static: "-C target-feature=+crt-static -C strip=symbols"},
    )  # fmt: skip
    if build.returncode:
        raise LabError("cargo build -p xen-bench failed")
    messages = [json.loads(line) for line in build.stdout.splitlines()]
    return Path(next(path for message in messages if (path := message.get("executable"))))


def linux_ramdisk(lab, program):
    """The guest's: as little as there can be: a shell, the driver, the services."""
    applets = "sh mount cat insmod ip usleep sleep".split()
    root = linux_root(lab, applets, ["modules/xen-netfront.ko"], HERE / "linux/bench-init")
    root.file("bench", program.read_bytes(), executable=True)
    return root.to_bytes()


def linux_root(lab, applets, modules, init):
    """A root for a Linux that does one thing."""
    from_lab = read_archive((lab.images / "linux.cpio").read_bytes())
    root = Archive()
    for folder in "proc", "sys", "dev":
        root.folder(folder)
    busybox = "bin/busybox"
    root.file(busybox, from_lab[busybox], executable=True)
    for applet in applets:
        root.link(f"bin/{applet}", "busybox")
    for path in modules:
        root.file(path, from_lab[path])
    root.file("init", init.read_bytes(), executable=True)
    return root


def read_archive(data):
    """The files of what cpio.py has written: path -> bytes."""
    files, at = {}, 0
    while True:
        size, name_size = (int(data[at + field : at + field + 8], 16) for field in (54, 94))
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size
        start += -start % 4
        if name == "TRAILER!!!":
            return files
        files[name] = data[start : start + size]
        at = start + size
        at += -at % 4


def image_size(kernel):
    """Of an ELF, packed: all up to the end of its last segment, without debug information."""
    data = kernel.read_bytes()
    table_at, entry_size, count = (
        *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54))  # fmt: skip
    end = 0
    for index in range(count):
        (offset,) = struct.unpack_from("<Q", data, table_at + index * entry_size + 8)
        (size,) = struct.unpack_from("<Q", data, table_at + index * entry_size + 32)
        end = max(end, offset + size)
    return len(gzip.compress(data[:end]))


def linux_size(ramdisk):
    """Of Debian's kernel, packed as it comes in its package, and of the ramdisk, packed."""
    debs = cache.default_root() / f"debs-{cache.key_of(['packages'])}"
    deb = next(debs.glob("linux-image-*.deb"))
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpack:
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as files:
            kernel = next(file for file in files if "/boot/vmlinuz-" in file.name)
        unpack.kill()
    return kernel.size + len(gzip.compress(ramdisk))
