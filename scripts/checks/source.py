"""Checks of the source: where `unsafe` is, what tests are called, what README and docs say."""

import re

import names
from runner import ROOT
from tools import BARE_METAL

# Where `unsafe` may be. Everything else forbids it, or denies it but for these modules.
UNSAFE_ROOMS = (
    "grant/",
    "guest/",
    "tests/sim/src/page.rs",
    # Count allocations: an allocator can't be written without.
    "tests/sim/src/bin/netfront-sim/alloc.rs",
    "tests/sim/tests/client_heap.rs",
    # Tests of the unsafe functions themselves, or with a memory of their own.
    "tests/sim/tests/grants.rs",
    "packet/tests/buffers/allocations.rs",
    "packet/tests/buffers/devices.rs",
    # A kernel's memory is its own promise: this shows how it is made.
    "examples/machine.rs",
)
NO_UNSAFE = {
    "src/lib.rs": "#![forbid(unsafe_code)]",
    "ring/src/lib.rs": "#![forbid(unsafe_code)]",
    "packet/src/lib.rs": "#![forbid(unsafe_code)]",
    "store/src/lib.rs": "#![forbid(unsafe_code)]",
    "tests/sim/src/lib.rs": "#![deny(unsafe_code)]",
}
CODE_FOLDERS = ("src", "tests", "ring", "grant", "packet", "store", "guest", "examples", "benches")
# Comments, raw strings, strings: none of them is code.
NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|\br(#*)".*?"\1|"(?:\\.|[^"\\])*"', re.DOTALL
)

# A line of docs/requirements.md that says what a promise is: `| F4 | ... |`.
PROMISE = re.compile(r"^\| ([FBPRN]\d+) \|", re.MULTILINE)

# A test in a text: what is true when it passes.
TEST_NAME = re.compile(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+){4,})`")


def unsafe_rooms(context):
    found = []
    for folder in CODE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.rs")):
            name = str(path.relative_to(ROOT))
            if name.startswith(UNSAFE_ROOMS):
                continue
            # Keeps the lines, so that they can be counted.
            code = NOT_CODE.sub(lambda match: "\n" * match[0].count("\n"), path.read_text())
            for number, line in enumerate(code.splitlines(), 1):
                if re.search(r"\bunsafe\b", line):
                    found.append(f"{name}:{number}: {line.strip()}")
    context.check("unsafe outside of its rooms", not found, "; ".join(found))
    for name, attribute in NO_UNSAFE.items():
        lines = (ROOT / name).read_text().splitlines()
        context.check(f"{name} says {attribute}", attribute in lines)


def no_std_dependencies(context):
    """What xen-netfront pulls in for bare metal. Procedural macros run on the builder's machine."""
    for features in ([], ["--features", "smoltcp"], ["--features", "embassy"]):
        tree = context.output_of(
            "cargo", "tree", "-p", "xen-netfront", "-e", "normal,no-proc-macro", *features,
            "--target", BARE_METAL, "--prefix", "none", "-f", "{p};{f}",
        )  # fmt: skip
        lines = [line.split(";") for line in tree.splitlines() if line]
        names = [package.split()[0] for package, _ in lines]
        bad = [f"{package}: {flags}" for package, flags in lines if "std" in flags.split(",")]
        context.check("no dependency has its feature std", not bad, "; ".join(bad))
        if not features:
            context.check("smoltcp is optional", "smoltcp" not in names)
    manifest = (ROOT / "Cargo.toml").read_text()
    defaults = re.search(r"^default\s*=\s*\[\s*\]$", manifest, re.MULTILINE)
    context.check("xen-netfront has no default feature", bool(defaults))


def rust_tests(context):
    """The names of all Rust tests, without their modules."""
    return names.of_default_members(context) | names.of_package(context, "xen-guest")


def listed_tests(context, *words):
    """The same as cargo lists them, for which it has to build them."""
    listing = context.output_of("cargo", "test", *words, "--lib", "--bins", "--tests",
                                "--", "--list")  # fmt: skip
    found = re.findall(r"^(\S+): test$", listing, re.MULTILINE)
    return {name.rpartition("::")[2] for name in found}


def names_are_those_compiled(context):
    """What the steps `requirements` and `readme` go by is what there is."""
    for words, read in (
        (["--all-features"], names.of_default_members(context)),
        (["-p", "xen-guest"], names.of_package(context, "xen-guest")),
    ):
        listed = listed_tests(context, *words)
        problem = f"only read {sorted(read - listed)}, only compiled {sorted(listed - read)}"
        context.check(f"tests of cargo test {' '.join(words)}", read == listed, problem)


def named_checks():
    """Checks in this folder that are named after a requirement, as `p5_...`."""
    texts = [path.read_text() for path in (ROOT / "scripts/checks").glob("*.py")]
    return set(re.findall(r"^def ([fbprn]\d+_\w+)\(", "\n".join(texts), re.MULTILINE))


def requirements(context):
    """Every promise has a test named after it, and every test so named is a promise's."""
    promises = PROMISE.findall((ROOT / "docs/requirements.md").read_text())
    context.check("there are promises", promises)
    twice = sorted({promise for promise in promises if promises.count(promise) > 1})
    context.check("promises that are there twice", not twice, ", ".join(twice))
    covered = {}
    for name in sorted(rust_tests(context) | named_checks()):
        # A test may be named after several: f7_r15_no_stale_byte.
        for requirement in re.match(r"(?:[fbprn]\d+_)*", name)[0].upper().split("_")[:-1]:
            covered.setdefault(requirement, []).append(name)
    for promise in promises:
        context.check(f"{promise} has no test named after it", promise in covered)
    for promise in sorted(covered.keys() - set(promises)):
        context.fail(f"docs/requirements.md does not know {promise}, as in {covered[promise][0]}")


def readme(context, steps):
    """The table of docs/tests.md: `| what | tests |`, each test in backticks; and what other
    documents name.

    A test is a Rust test function, a check of these scripts, a step of scripts/test (written
    `scripts/test --only NAME`), or a test on real Xen (`scripts/xen test NAME`).
    """
    rows = re.findall(r"^\|(.+)\|(.+)\|$", (ROOT / "docs/tests.md").read_text(), re.MULTILINE)
    rows = [row for row in rows if not set(row[1]) <= set(" -:")][1:]
    context.check("docs/tests.md has a table of what works", bool(rows))
    known = rust_tests(context) | named_checks()
    lab = {path.name for path in (ROOT / "scripts/lab/tests").iterdir()}
    known.update(f"scripts/test --only {name}" for name in steps)
    known.update(f"scripts/xen test {name}" for name in lab)
    for what, tests in rows:
        named = re.findall(r"`([^`]+)`", tests)
        unknown = [name for name in named if name not in known]
        problem = "names no test" if not named else f"there is no {', '.join(unknown)}"
        context.check(f"docs/tests.md, {what.strip()!r}", named and not unknown, problem)
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]):
        document(context, path, steps, lab, known)


def document(context, file, steps, lab, known):
    """The scripts' steps and tests, the files, and the Rust tests that a document names are there. A name of five
    words and more is a test's."""
    text = file.read_text()
    unknown = [name for name in TEST_NAME.findall(text) if name not in known]
    for words in re.findall(r"\bscripts/test --only((?: [a-z-]+)+)", text):
        unknown += [f"scripts/test --only {word}" for word in words.split() if word not in steps]
    for word in re.findall(r"\bscripts/xen test ([a-z-]+)", text):
        unknown += [] if word in lab else [f"scripts/xen test {word}"]
    for path in re.findall(r"\]\(([\w./-]+)\)", text):
        unknown += [] if file.parent.joinpath(path).exists() else [path]
    name = file.relative_to(ROOT)
    context.check(f"{name} names what there is", not unknown, f"there is no {', '.join(unknown)}")
