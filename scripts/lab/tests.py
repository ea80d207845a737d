"""Finds the tests, groups them by the machine they need, and runs them.

A test is a file in tests/: a bash fragment that runs in dom0 with the functions
of dom0/lib. Its head says what the host has to know, in comments:

    # One or more lines that say what is tested.
    # images: echo linux   the guest images it starts (see scripts/image; "echo-debug"
    #                      is scripts/image --debug echo)
    # timeout: 90          seconds after which it is ended, and failed
    # dom0-vcpus: 2        default 1; netback offers a queue for each
    # long: yes            only run by name or with --long

With --long, a test finds LONG=yes and may do more.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass

from cache import HERE, LabError, say
from machine import Setup, booted, show

FOLDER = HERE / "tests"
KEYS = ("images", "timeout", "dom0-vcpus", "long")
# Between tests dom0 prints consoles and destroys guests.
CLEANUP_SECONDS = 60


@dataclass
class Test:
    name: str
    about: str
    images: list
    timeout: int = 60
    dom0_vcpus: int = 1
    long: bool = False


@dataclass
class Result:
    """Counts checks, not files: a test makes several."""

    passed: int = 0
    failed: int = 0

    def report(self, word, test, text):
        self.passed += word == "PASS"
        self.failed += word == "FAIL"
        print(f"{word} {test.name}: {text}", flush=True)


def all_tests():
    return [read_test(path) for path in sorted(FOLDER.iterdir())]


def read_test(path):
    about, values = [], {}
    for line in path.read_text().splitlines():
        if not line.startswith("# "):
            break
        key, colon, value = line[2:].partition(":")
        if colon and key in KEYS:
            values[key] = value.strip()
        else:
            about.append(line[2:])
    return Test(
        name=path.name,
        about=" ".join(about),
        images=values.get("images", "").split(),
        timeout=int(values.get("timeout", 60)),
        dom0_vcpus=int(values.get("dom0-vcpus", 1)),
        long=values.get("long") == "yes",
    )


def build_image(name):
    """The path of a guest image's ELF; None for the lab's own Linux."""
    if name == "linux":
        return None
    words = [name]
    if name.endswith("-debug"):
        words = ["--debug", name.removesuffix("-debug")]
    say(f"scripts/image {' '.join(words)}")
    result = subprocess.run([HERE.parent / "image", *words], stdout=subprocess.PIPE, text=True)
    if result.returncode == 2:
        sys.exit(2)  # no such image: it has said so
    if result.returncode:
        raise LabError(f"scripts/image {' '.join(words)} failed")
    return result.stdout.splitlines()[-1]


def run(lab, tests, log, verbose, long):
    kernels = {image: build_image(image) for test in tests for image in test.images}
    result = Result()
    for dom0_vcpus in sorted({test.dom0_vcpus for test in tests}):
        group = [test for test in tests if test.dom0_vcpus == dom0_vcpus]
        setup = Setup(lab, dom0_vcpus)
        setup.config["LONG"] = "yes" if long else ""
        for image in sorted({image for test in group for image in test.images}):
            setup.add_image(image, kernels[image])
        for test in group:
            setup.add(f"lab/tests/{test.name}", FOLDER / test.name)
        for name in "echo.cfg", "backend.cfg":
            setup.add(f"lab/{name}", HERE.parent / name)
        run_group(setup, group, log, verbose, result)
    return result


def run_group(setup, tests, log, verbose, result):
    """Runs tests in one boot. Should one take Xen or dom0 down, it has failed,
    and those after it get a boot of their own."""
    pending = list(tests)
    while pending:
        setup.config["TESTS"] = " ".join(f"{test.name}:{test.timeout}" for test in pending)
        machine = booted(setup, log, verbose)
        if machine is None:
            for test in pending:
                result.report("FAIL", test, "Xen boots")
            return
        with machine:
            alive = True
            while pending and alive:
                alive = follow(machine, pending.pop(0), verbose, result)


def follow(machine, test, verbose, result):
    """Reports one test to its end; False if Xen or dom0 did not live to see it."""
    lines = []
    passed, failed = result.passed, result.failed
    deadline = time.monotonic() + test.timeout + CLEANUP_SECONDS
    ended = False
    while not ended and (item := machine.line(deadline)) is not None:
        lines.append(item)
        source, text = item
        found = re.fullmatch(r"@@ (PASS|FAIL|NOTE|END) (.*)", text)
        if source == "dom0" and found:
            ended = found[1] == "END"
            if not ended:
                result.report(found[1], test, found[2])
    if not ended:
        result.report("FAIL", test, "Xen and dom0 live to its end")
    elif (result.passed, result.failed) == (passed, failed):
        result.report("FAIL", test, "says PASS or FAIL at least once")
    if result.failed > failed and not verbose:
        print(f"What {test.name} printed:")
        show(lines)
    return ended
