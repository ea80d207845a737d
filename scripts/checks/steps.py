"""The steps of scripts/test, in the order they run: what takes a second comes first."""

import os
from dataclasses import dataclass
from typing import Callable

import examples
import image
import job
import offload_tap
import publish
import source
import tap
import tools
from runner import ROOT
from tools import BARE_METAL

# Seeds of the deterministic host: every run takes the same, so that a failure is a change's.
SEEDS = 2000


# Tests that count to more than Miri gets to in time: it is a thousand times slower.
TOO_MUCH_FOR_MIRI = (
    "reserved_entries_are_respected",
    "the_lowest_free_reference_is_claimed",
    "the_peer_is_told_when_its_threshold_is_passed",
    "any_peer_any_moment",
    "nobody_sleeps_for_ever",
    "f1_every_impossible",
    "b1_every_impossible",
)


def fmt(context):
    tools.cargo(context, "rustfmt")
    context.command("cargo", "fmt", "--all", "--check", "--", "--color", "never")
    # These are in no workspace.
    outside = [str(path) for path in sorted((ROOT / "scripts/outside").glob("*/src/*.rs"))]
    context.command("rustfmt", "--check", "--color", "never", "--edition", "2024", *outside)


def clippy(context):
    tools.cargo(context, "clippy")
    tools.bare_metal(context)
    deny = ("--", "-D", "warnings")
    context.command("cargo", "clippy", "--keep-going", "--all-targets", "--all-features", *deny)
    context.command("cargo", "clippy", "-p", "xen-guest", "--all-targets", *deny)
    context.command(
        "cargo", "clippy", "-p", "xen-guest", "--lib", "--bins", "--examples", "--all-features",
        "--target", BARE_METAL, *deny,
    )  # fmt: skip


def docs(context):
    tools.bare_metal(context)
    deny = {"RUSTDOCFLAGS": "-D warnings"}
    context.command("cargo", "doc", "--no-deps", "--all-features", env=deny)
    context.command(
        "cargo", "doc", "--no-deps", "-p", "xen-guest", "--target", BARE_METAL, env=deny
    )


def bare(context):
    """Each crate alone: a workspace build would hide a feature that another crate turned on."""
    tools.bare_metal(context)
    for package in (["xen-ring"], ["xen-grant"], ["xen-store"], ["packet-views"],
                    ["packet-views", "--features", "smoltcp"],
                    ["packet-views", "--features", "embassy"], ["xen-netfront"],
                    ["xen-netfront", "--features", "smoltcp"],
                    ["xen-netfront", "--features", "embassy"]):  # fmt: skip
        context.command("cargo", "build", "-p", *package, "--target", BARE_METAL)
    source.no_std_dependencies(context)


def tests(context):
    tools.cargo(context)
    context.cargo_tests("cargo", "test", "--no-fail-fast", "--all-features", "--", "--skip", "abi_")


def guest_tests(context):
    """Of the guest, what needs no machine."""
    tools.cargo(context)
    words = ("cargo", "test", "--no-fail-fast", "-p", "xen-guest")
    context.cargo_tests(*words, "--", "--skip", "abi_")


def all_examples(context):
    tools.cargo(context)
    examples.check(context)


def abi(context):
    tools.cargo(context)
    tools.xen_headers(context)
    required = {"XEN_ABI_REQUIRED": "1"}
    context.cargo_tests("cargo", "test", "--test", "abi", env=required)
    if (ROOT / "tests/abi/guest.rs").exists():
        context.cargo_tests("cargo", "test", "-p", "xen-guest", "--test", "abi", env=required)


def requirements(context):
    tools.cargo(context)
    source.requirements(context)


def readme(context):
    tools.cargo(context)
    source.readme(context, [step.name for step in STEPS])


def names_in_sources(context):
    """Costs little after `tests` and `guest`, which have built what it lists."""
    tools.cargo(context)
    context.command("python3", "-B", "scripts/checks/names_test.py")
    source.names_are_those_compiled(context)


def seeds(context):
    tools.cargo(context)
    count = os.environ.get("XEN_SEEDS", SEEDS)
    context.cargo_tests(
        "cargo", "test", "--release", "-p", "xen-sim", "--test", "seeds", env={"XEN_SEEDS": count}
    )


def loom(context):
    """Ring and grant with loom's atomics; a target folder of its own, or all would be rebuilt."""
    tools.cargo(context)
    context.cargo_tests(
        "cargo", "test", "--no-fail-fast", "--release", "-p", "xen-ring", "-p", "xen-grant",
        "--test", "loom",
        env={"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": f"{tools.target_dir()}/loom"},
    )  # fmt: skip


def miri(context):
    """Tree borrows, because bitvec is not clean without. Tests left out or ignored here are those
    that only take too long under Miri; they run in the step `tests`, so they are no skips."""
    if not tools.miri(context):
        return
    flags = "-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-disable-isolation"
    # A few cases of each property are enough to meet every line.
    env = {"MIRIFLAGS": flags, "PROPTEST_CASES": "2"}
    cargo_miri = ("cargo", "+nightly", "miri", "test", "--no-fail-fast")
    left_out = [word for name in TOO_MUCH_FOR_MIRI for word in ("--skip", name)]
    for words in (
        ("-p", "xen-ring", "--lib", "--tests"),
        ("-p", "xen-grant", "--lib", "--tests"),
        ("-p", "packet-views", "--test", "buffers"),
    ):
        context.cargo_tests(
            *cargo_miri, *words, "--", *left_out, env=env, count_ignored=False
        )


def guest_image(context):
    tools.bare_metal(context)
    tools.binutils(context)
    image.check(context)


def packages(context):
    tools.bare_metal(context)
    tools.binutils(context)
    publish.check(context)


def instructions(context):
    script = "scripts/instructions"
    if not (ROOT / script).exists():
        context.skip(f"there is no {script}")
        return
    tools.cargo(context)
    tools.valgrind(context)
    tools.xen_headers(context)
    context.command(script, "--smoke")


def main_job(context):
    tools.cargo(context)
    job.check(context)


def on_a_tap(context):
    tap.check(context)


def offloads(context):
    offload_tap.check(context)


def soak(context):
    tools.cargo(context)
    context.command("scripts/soak", "--minutes", "10")


def xen(context):
    tools.bare_metal(context)
    context.lab_tests("scripts/xen", "test", *(["--long"] if context.long else []))


def bench(context):
    tools.bare_metal(context)
    for what in "guest", "backend":
        context.lab_tests("scripts/xen", "bench", what, "--smoke")


@dataclass
class Step:
    name: str
    about: str
    run: Callable
    # After so many seconds it is ended, and has failed.
    seconds: int = 900
    long: bool = False
    # Started first, its outcome told when it is its turn: for steps that leave the other cores and
    # the other steps' target folders alone.
    beside: bool = False


STEPS = [
    Step("fmt", "the code is formatted", fmt),
    Step("unsafe", "unsafe code stays in its rooms", source.unsafe_rooms),
    Step("clippy", "no lint has anything to say", clippy),
    Step("bare", "each crate builds alone, without std", bare),
    Step("oldest", "each crate builds with the oldest Rust that will do", publish.oldest),
    Step("docs", "the documentation builds without warnings", docs),
    Step("tests", "unit, integration and documentation tests", tests, 1200),
    Step("guest", "tests of the guest's parts that need no machine", guest_tests),
    Step("examples", "each example runs, and says what it did", all_examples, 600),
    Step("abi", "layouts and numbers against Xen's C headers", abi),
    Step("requirements", "every promise has a test named after it, every such test a promise", requirements),
    Step("readme", "every test that README and docs name exists", readme),
    Step("names", "the tests that both have read of are those that are compiled", names_in_sources),
    Step("main-job", "cargo run --release, honest and hostile", main_job),
    Step("tap", "ping, curl, iperf and tcpdump of this machine, on a TAP device", on_a_tap, 900),
    Step("offloads", "cutting and checksums beside Linux's own, on a TAP device", offloads, 600),
    Step("seeds", "seeds of the deterministic host (XEN_SEEDS)", seeds, 1200),
    Step("loom", "every interleaving of the lock-free parts", loom),
    Step("miri", "ring, grant and buffers under Miri", miri, 2400, beside=True),
    Step("image", "the guest images: segments, hypercall stubs", guest_image),
    Step("publish", "each crate can be published; kernels elsewhere use what is", packages),
    Step("instructions", "the instruction counts can be measured", instructions),
    Step("soak", "ten more minutes of the deterministic host", soak, 1800, long=True),
    Step("xen", "boot on real Xen", xen, 3600),
    Step("bench", "the benches beside Linux can be run", bench, 1200),
]
