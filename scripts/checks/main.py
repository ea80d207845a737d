"""The command line of scripts/test: which steps run, and what they came to."""

import argparse
import signal
import sys
import threading
import time

from runner import Context, Outcome, end_all
from steps import STEPS

ABOUT = """\
Runs the project's checks, each a named step. All of them take some 40 minutes on two
cores, more where nothing is built yet; fmt, unsafe, requirements and readme take
seconds. A step's output is shown when it fails. The last line is "N passed, N
failed, N skipped": tests and single checks together. The exit status is 0 if
nothing failed.

It installs what its steps need and this machine lacks: Debian packages (as root),
rustup targets and components, older toolchains, a nightly one for Miri. The steps on
real Xen download more packages, into ~/.cache/xen-netfront."""

EXAMPLES = """\
examples:
  scripts/test                         everything but the long steps
  scripts/test --only fmt clippy       two steps
  XEN_SEEDS=100 scripts/test --only seeds
  scripts/test --long                  with the soak and the long tests on real Xen"""


def main():
    # Ended from outside, it takes what it started with it, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = make_parser().parse_args()
    if args.list:
        for step in STEPS:
            print(f"{step.name:14} {step.about}{' (long)' if step.long else ''}")
        return 0
    chosen = [step for step in STEPS if not args.only or step.name in args.only]
    chosen = [step for step in chosen if args.only or args.long or not step.long]
    started = time.monotonic()
    outcomes = []
    try:
        # With all output shown, two steps at a time would be hard to read.
        early = [step for step in chosen if step.beside and not args.verbose]
        beside = {step.name: Beside(step, args) for step in early}
        for step in chosen:
            outcomes.append(run(step, args, beside.get(step.name)))
    except KeyboardInterrupt:
        end_all()
        print("\ninterrupted", file=sys.stderr)
        return 130
    summarise(outcomes, time.monotonic() - started)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def make_parser():
    parser = argparse.ArgumentParser(
        "scripts/test",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--only", metavar="STEP", nargs="+", type=step_name, help="run these steps")
    parser.add_argument("--long", action="store_true", help="with the steps that take long")
    parser.add_argument("--list", action="store_true", help="show what steps there are, run none")
    parser.add_argument("--verbose", action="store_true", help="show all output while it comes")
    return parser


def step_name(text):
    if text not in (step.name for step in STEPS):
        raise argparse.ArgumentTypeError(f"there is no step {text!r}; see --list")
    return text


def attempt(step, args):
    context = Context(step.name, verbose=args.verbose, long=args.long, seconds=step.seconds)
    return context.attempt(step.run)


class Beside(threading.Thread):
    """A step that keeps one core busy, started ahead of its turn."""

    def __init__(self, step, args):
        super().__init__(daemon=True)
        self.work = lambda: attempt(step, args)
        self.outcome = None
        self.start()

    def run(self):
        self.outcome = self.work()

    def result(self):
        self.join()
        return self.outcome


def run(step, args, beside):
    print(f"{step.name:14} {step.about} ...", end="\n" if args.verbose else " ", flush=True)
    outcome = beside.result() if beside else attempt(step, args)
    if args.verbose:
        print(step.name, end=" ")
    print(f"{outcome.word()}, {outcome.seconds:.0f} s", flush=True)
    for reason in outcome.skips:
        print(f"    skipped: {reason}")
    if outcome.failed:
        for reason in outcome.failures:
            print(f"    FAILED: {reason}")
        if not args.verbose and outcome.output:
            print(f"---- what {step.name} printed ----")
            print(outcome.output, end="")
            print(f"---- end of {step.name} ----")
        sys.stdout.flush()
    return outcome


def summarise(outcomes, seconds):
    total = Outcome("total")
    total.seconds = seconds
    print(f"\n{'step':14} {'passed':>7} {'failed':>7} {'skipped':>8} {'time':>7}")
    for outcome in outcomes:
        total.passed += outcome.passed
        total.failed += outcome.failed
        total.skipped += outcome.skipped
        print(outcome.row())
    print(total.row())
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")


sys.exit(main())
