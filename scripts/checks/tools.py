"""Tools that steps need: asked for by the step that uses them, installed if missing."""

import os
import shutil
from pathlib import Path

from runner import INSTALLING, ROOT, StepError

APT = str(ROOT / "scripts/lab/apt.sh")
BARE_METAL = "x86_64-unknown-none"

# A shell that has not read rustup's profile does not find cargo.
os.environ["PATH"] += os.pathsep + str(Path.home() / ".cargo/bin")


def cargo(context, *components):
    """cargo, a linker for it, and components of the stable toolchain."""
    if not shutil.which("cargo") or not shutil.which("rustup"):
        raise StepError("cargo and rustup are needed: see https://rustup.rs")
    context.setup(APT, "need", "cc", "gcc", "libc6-dev")
    if components:
        context.setup("rustup", "component", "add", *components)


def bare_metal(context):
    """What it takes to build for a machine without an operating system."""
    cargo(context)
    context.setup("rustup", "target", "add", BARE_METAL)


def toolchain(context, version):
    """An older Rust, for `cargo +VERSION`."""
    cargo(context)
    context.setup(
        "rustup", "toolchain", "install", version, "--profile", "minimal", "--target", BARE_METAL
    )


def xen_headers(context):
    if not Path("/usr/include/xen/io/netif.h").exists():
        # There is no command to ask for: the name only goes into apt.sh's message.
        context.setup(APT, "need", "xen/io/netif.h", "libxen-dev")


def valgrind(context):
    context.setup(APT, "need", "valgrind", "valgrind", "libc6-dbg")


def network(context):
    """Debian's network tools."""
    for command, package in (
        ("ip", "iproute2"), ("ethtool", "ethtool"), ("ping", "iputils-ping"), ("curl", "curl"),
        ("iperf", "iperf"), ("tcpdump", "tcpdump"), ("hping3", "hping3"),
    ):  # fmt: skip
        context.setup(APT, "need", command, package)


def target_dir():
    """Where cargo puts what it builds."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


def binutils(context):
    context.setup(APT, "need", "objdump", "binutils")


def miri(context):
    """Nightly with Miri; False, with the reason counted as a skip, where there is none.

    Miri comes with most nightlies, not with every one, so a machine may lack it through no
    fault of the project: that is told, not failed.
    """
    cargo(context)
    toolchain = ["rustup", "toolchain", "install", "nightly", "--profile", "minimal"]
    steps = [["rustup", "component", "add", "--toolchain", "nightly", "miri", "rust-src"]]
    if context.status_and_output("cargo", "+nightly", "--version")[0]:
        steps.insert(0, toolchain)
    for words in steps:
        with INSTALLING:
            status, output = context.status_and_output(*words)
        if status:
            said = output.strip().splitlines()[-1:] or ["nothing"]
            context.skip(f"Miri does not run here: {' '.join(words)} said: {said[0]}")
            return False
    return True
