"""The command line of scripts/xen."""

import argparse
import os
import re
import shutil
import sys
import time
from pathlib import Path

import bench
import cache
import tests
from cache import LabError, say
from machine import Setup, booted, end_on_sigterm

ABOUT = """\
Boots guests on a real Xen 4.17 that runs inside QEMU's software emulation: a PV
dom0 with Linux's netback, and PVH guests. dom0 is 10.0.0.1, the guest 10.0.0.2.

All it needs it takes from Debian 12's packages: QEMU 7.2 is installed if it is
missing, the others are only unpacked, into a cache: $XEN_LAB, by default
~/.cache/xen-netfront/lab. Delete that folder to have newer packages."""

EXAMPLES = """\
examples:
  scripts/xen run echo                           does our driver answer a ping?
  scripts/xen run echo --vcpus 2 -- queues=2     with more on its command line
  scripts/xen run linux --verbose                the reference guest, all shown
  scripts/xen run backend                        a Linux guest behind our backend
  scripts/xen test ping echo                     two tests, one boot"""

RUN_ABOUT = """\
Builds an image by scripts/image, boots it and pings it from dom0. The image
"linux" is no image of ours: it is the reference guest, Debian's own Linux. The
image "backend" is a driver domain: it serves a reference guest, which is pinged
and more; the options are then the backend's."""

TEST_ABOUT = """\
Runs tests: the named ones, or all that are not marked long. Tests that need the
same machine share one boot. If Xen does not come up, that boot is tried once
more, and said to be; what a test asserts is never tried twice. The last line is
"N passed, N failed"; the exit status is 0 if none failed."""

SHELL_ABOUT = """\
Boots Xen and leaves a shell in dom0 on this terminal, with the functions the
tests use: "create echo" starts the guest image echo, for instance."""

BENCH_ABOUT = """\
Measures the image echo beside a Linux guest of the same size, by turns, in one boot,
served by the same netback; or the image backend beside a Linux driver domain, each
serving a Linux guest. Prints a table of ratios, ours by Linux's. Wants a machine
that does nothing else, and a quarter of an hour. The exit status is 0 if each row was measured
and all bytes were right: the table says which aims are reached."""

DEFAULT_CMDLINE = "ip=10.0.0.2/24 gw=10.0.0.1"


def main():
    end_on_sigterm()
    # What follows "--" is the guest's, whatever it looks like.
    arguments, guest_words = sys.argv[1:], []
    if "--" in arguments:
        split = arguments.index("--")
        arguments, guest_words = arguments[:split], arguments[split + 1 :]
    parser = make_parser()
    args = parser.parse_args(arguments)
    if guest_words and args.command is not run_command:
        parser.error("only `run` takes a kernel command line after --")
    args.guest_words = guest_words
    try:
        sys.exit(args.command(args))
    except LabError as error:
        sys.exit(f"scripts/xen: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def make_parser():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "scripts/xen", description=ABOUT, epilog=EXAMPLES, formatter_class=raw
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name, command, summary, about):
        sub = commands.add_parser(name, help=summary, description=about, formatter_class=raw)
        # Errors found after parsing are reported like argparse's own.
        sub.set_defaults(command=command, usage_error=sub.error)
        return sub

    sub = add("run", run_command, "boot one guest image and ping it", RUN_ABOUT)
    sub.usage = "scripts/xen run IMAGE [options] [-- more of the kernel command line]"
    sub.add_argument("image", metavar="IMAGE", nargs="?", help="a name scripts/image knows")
    sub.add_argument("--kernel", type=existing_file, metavar="PATH",
                     help="boot this ELF, do not build one")  # fmt: skip
    sub.add_argument("--vcpus", type=number(1, 32), default=1, metavar="N", help="of the guest")
    sub.add_argument("--memory", type=number(1, 65536), metavar="MB",
                     help="of the guest (default 32, or 160 for linux)")  # fmt: skip
    sub.add_argument("--cmdline", metavar="TEXT",
                     help=f"the guest's kernel command line (default: {DEFAULT_CMDLINE}; none for backend)")  # fmt: skip
    sub.add_argument("--timeout", type=number(1, 3600), default=60, metavar="SECONDS",
                     help="for the first ping to be answered (default: %(default)s)")  # fmt: skip
    add_dom0_vcpus(sub)
    add_output(sub)

    sub = add("test", test_command, "run the tests on real Xen", TEST_ABOUT)
    sub.add_argument("names", metavar="NAME", nargs="*", help="of a test; see --list")
    sub.add_argument("--list", action="store_true", help="show what tests there are, run none")
    sub.add_argument("--long", action="store_true", help="with those marked long")
    add_output(sub)

    sub = add("bench", bench_command, "measure our guest, or backend, beside Linux's", BENCH_ABOUT)
    sub.add_argument("what", nargs="?", choices=["guest", "backend"], default="guest",
                     help="what is measured (default: %(default)s)")  # fmt: skip
    sub.add_argument("--rounds", type=number(1, 100), default=5, metavar="N",
                     help="each is booted and measured so often (default: %(default)s)")  # fmt: skip
    sub.add_argument("--seconds", type=number(1, 60), default=5, metavar="N",
                     help="for each transfer (default: %(default)s)")  # fmt: skip
    sub.add_argument("--memory", type=number(96, 1024), default=256, metavar="MB",
                     help="of either of the two (default: %(default)s)")  # fmt: skip
    sub.add_argument("--smoke", action="store_true",
                     help="one short round: does everything get measured?")  # fmt: skip
    add_output(sub)

    sub = add("shell", shell_command, "leave a shell in dom0 on this terminal", SHELL_ABOUT)
    sub.add_argument("images", metavar="IMAGE", nargs="*", default=["linux"],
                     help="guest images to have there (default: linux)")  # fmt: skip
    add_dom0_vcpus(sub)
    sub.add_argument("--log", metavar="FILE", help="where the boot's lines go")

    add("lab", lab_command, "only build the lab, if the cache lacks it",
        "Downloads and builds all that the other commands need, without running it.")  # fmt: skip
    return parser


def add_dom0_vcpus(parser):
    parser.add_argument("--dom0-vcpus", type=number(1, 8), default=1, metavar="N",
                        help="netback offers a queue for each (default 1)")  # fmt: skip


def add_output(parser):
    parser.add_argument("--log", metavar="FILE",
                        help="for what Xen, dom0 and guests print (default: in the cache)")
    parser.add_argument("--verbose", action="store_true", help="show that while it runs")


def number(least, most):
    def parse(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return parse


def existing_file(text):
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return Path(text)


def run_command(args):
    if not args.image and not args.kernel:
        args.usage_error("an IMAGE or --kernel PATH is needed")
    name = args.image or args.kernel.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        args.usage_error(f"{name!r} is no name of an image")
    serves = name == "backend"
    given = args.cmdline if args.cmdline is not None else "" if serves else DEFAULT_CMDLINE
    cmdline = " ".join([given, *args.guest_words])
    address = re.search(r"\bip=(\d+\.\d+\.\d+\.\d+)\b", cmdline)
    if not address and not serves:
        args.usage_error(f"the command line {cmdline!r} names no ip=A.B.C.D/LEN to ping")
    memory = args.memory or (160 if name == "linux" else 32)
    kernel = args.kernel or tests.build_image(name)
    lab = cache.ready_lab()
    setup = Setup(lab, args.dom0_vcpus, memory)
    setup.add_image(name, kernel)
    if serves:
        setup.add_image("linux", None)
    setup.add(f"lab/tests/{name}", cache.HERE / f"dom0/{'run-backend' if serves else 'run-image'}")
    setup.config = {
        "IMAGE": name,
        "VCPUS": args.vcpus,
        "MEMORY": memory,
        "CMDLINE": cmdline,
        "ADDRESS": address[1] if address else "",
        "PING_SECONDS": args.timeout,
    }
    test = tests.Test(name, "", [name], timeout=args.timeout + (240 if serves else 60))
    result = tests.Result()
    with open_log(lab, args) as log:
        tests.run_group(setup, [test], log, args.verbose, result)
    return finish(result)


def test_command(args):
    known = {test.name: test for test in tests.all_tests()}
    for name in args.names:
        if name not in known:
            args.usage_error(f"there is no test {name!r}; there is {', '.join(known)}")
    if args.list:
        for test in known.values():
            print(f"{test.name:12} {test.about}{' (long)' if test.long else ''}")
        return 0
    chosen = [known[name] for name in dict.fromkeys(args.names)]
    chosen = chosen or [test for test in known.values() if args.long or not test.long]
    lab = cache.ready_lab()
    with open_log(lab, args) as log:
        result = tests.run(lab, chosen, log, args.verbose, args.long)
    return finish(result)


def bench_command(args):
    result = tests.Result()
    bench.run(args, open_log, result)
    return finish(result)


def finish(result):
    print(f"{result.passed} passed, {result.failed} failed")
    return 1 if result.failed else 0


def shell_command(args):
    kernels = {name: tests.build_image(name) for name in args.images}
    lab = cache.ready_lab()
    setup = Setup(lab, args.dom0_vcpus)
    for name, kernel in kernels.items():
        setup.add_image(name, kernel)
    size = shutil.get_terminal_size()
    setup.config = {"SHELL_ROWS": size.lines, "SHELL_COLUMNS": size.columns}
    with open_log(lab, args) as log:
        machine = booted(setup, log, verbose=False)
        if machine is None:
            raise LabError("Xen does not boot")
        with machine:
            machine.interact()
    return 0


def lab_command(_args):
    lab = cache.ready_lab()
    say(f"ready in {lab.images}")
    return 0


def open_log(lab, args):
    path = args.log or lab.logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    say(f"booting Xen; all it prints goes to {path}")
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        args.usage_error(f"--log: {error}")


main()
