"""Runs one step: its commands, with a time limit, and the count of what they tested."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Lines that say nothing once something else has failed.
NOISE = re.compile(
    r"(test .* \.\.\. ok|running \d+ tests?|\s+(Compiling|Downloaded|Downloading|Checking|Fresh"
    r"|Locking|Adding|Updating|Documenting|Running|Doc-tests) .*)?\s*"
)
CARGO_RESULT = re.compile(
    r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.MULTILINE
)


# Two steps at a time install one after the other.
INSTALLING = threading.Lock()
# Commands that run now.
CHILDREN = set()


class StepError(Exception):
    """A step that can't go on."""


class Outcome:
    """What a step came to. `passed`, `failed` and `skipped` count tests and checks, not steps."""

    def __init__(self, name):
        self.name = name
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.skips = []
        self.output = ""
        self.seconds = 0.0

    def word(self):
        if self.failed:
            return f"FAILED ({self.failed} of {self.passed + self.failed})"
        if self.skipped and not self.passed:
            return "skipped"
        return f"ok ({self.passed})"

    def row(self):
        return (
            f"{self.name:14} {self.passed:7} {self.failed:7} {self.skipped:8} {self.seconds:5.0f} s"
        )


class Context:
    """What a step may use: commands, checks, and whether the long form is wanted."""

    def __init__(self, name, verbose, long, seconds):
        self.outcome = Outcome(name)
        self.verbose = verbose
        self.long = long
        self.started = time.monotonic()
        self.deadline = self.started + seconds

    def attempt(self, step):
        """Runs the step to its end, whatever happens in it."""
        try:
            step(self)
        except StepError as error:
            self.fail(str(error))
        except Exception:  # a fault of the step itself fails it, and the others still run
            self.fail(traceback.format_exc())
        outcome = self.outcome
        if not (outcome.passed or outcome.failed or outcome.skipped):
            self.fail("the step has checked nothing")
        outcome.seconds = time.monotonic() - self.started
        return outcome

    def passed(self, tests=1):
        self.outcome.passed += tests

    def fail(self, reason, tests=1):
        self.outcome.failed += tests
        self.outcome.failures.append(reason)

    def skip(self, reason):
        self.outcome.skipped += 1
        self.outcome.skips.append(reason)

    def check(self, name, ok, otherwise=""):
        """One check that has a name, and what to say if it fails."""
        if ok:
            self.passed()
        else:
            self.fail(f"{name}: {otherwise}" if otherwise else name)

    def command(self, *words, env=None):
        """A command whose success is one check."""
        status, _ = self._run(words, env)
        self.check(" ".join(words), status == 0, f"exit status {status}")
        return status == 0

    def cargo_tests(self, *words, env=None, count_ignored=True):
        """A `cargo test`, counted by the tests it ran."""
        status, output = self._run(words, env)
        results = [tuple(map(int, found)) for found in CARGO_RESULT.findall(output)]
        passed, failed, ignored = map(sum, zip(*results)) if results else (0, 0, 0)
        self.passed(passed)
        if status:
            # Failed without a failed test: it did not compile, or a test binary died.
            self.fail(f"{' '.join(words)}: exit status {status}", max(failed, 1))
        elif not passed:
            self.fail(f"{' '.join(words)}: ran no test")
        if ignored and count_ignored:
            self.outcome.skipped += ignored
            self.outcome.skips.append(f"{ignored} marked to be ignored")

    def lab_tests(self, *words):
        """Tests on real Xen, which count themselves."""
        status, output = self._run(words, None)
        counts = re.findall(r"^(\d+) passed, (\d+) failed$", output, re.MULTILINE)
        passed, failed = map(int, counts[-1]) if counts else (0, 0)
        self.passed(passed)
        if status or not counts:
            self.fail(f"{' '.join(words)}: exit status {status}", max(failed, 1))

    def output_of(self, *words, env=None):
        """What a command prints to stdout; the step fails without it. Only stderr is shown."""
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            status, output = self._run(words, env, stderr=errors, show=False)
            errors.seek(0)
            for line in errors:
                self._say(line.rstrip("\n"))
        if status:
            raise StepError(f"{' '.join(words)}: exit status {status}")
        return output

    def status_and_output(self, *words, env=None):
        """Exit status and output of a command that may fail. Of stdout and stderr, both."""
        return self._run(words, env)

    def setup(self, *words):
        """A command that gets something ready: no check, but the step fails without it."""
        with INSTALLING:
            status, _ = self._run(words, None)
        if status:
            raise StepError(f"{' '.join(words)}: exit status {status}")

    def _run(self, words, env, stderr=subprocess.STDOUT, show=True):
        env = {key: str(value) for key, value in (env or {}).items()}
        self._say(" ".join(["$", *(f"{key}={value}" for key, value in env.items()), *words]))
        try:
            child = subprocess.Popen(
                words, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=stderr, text=True, errors="replace",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._say(str(error))
            return 127, ""
        CHILDREN.add(child)
        # Children of the command hold the pipe open as well: all of them are ended.
        left = max(self.deadline - time.monotonic(), 1)
        overdue = threading.Event()

        def end():
            overdue.set()
            end_group(child)

        timer = threading.Timer(left, end)
        timer.start()
        lines = []
        try:
            for line in child.stdout:
                lines.append(line)
                if show:
                    self._say(line.rstrip("\n"))
            status = child.wait()
        except BaseException:
            end_group(child)
            raise
        finally:
            CHILDREN.discard(child)
            timer.cancel()
        if overdue.is_set():
            self._say(f"ended after {left:.0f} s: the step's time is over")
            status = status or 124
        return status, "".join(lines)

    def _say(self, line):
        if self.verbose:
            print(line, flush=True)
        elif not NOISE.fullmatch(line):
            self.outcome.output += line + "\n"


def end_all():
    for child in list(CHILDREN):
        end_group(child)


def end_group(child):
    """Ends a command and all it has started. It gets a moment to clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(timeout=5)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
