"""The root package's examples: each runs by itself, says what it did, and ends with exit status 0."""

import json

from runner import ROOT

PACKAGE = "xen-netfront"


def check(context):
    known = targets(context)
    folder = ROOT / "examples"
    there = {path.stem for path in folder.iterdir() if path.suffix == ".rs"}
    there |= {path.name for path in folder.iterdir() if path.is_dir()}
    context.check("there are examples", bool(there))
    context.check("cargo knows each of them, and no other", known == there, str(known ^ there))
    # Built first, so that what an example prints is all there is.
    if not context.command("cargo", "build", "-p", PACKAGE, "--examples"):
        return
    for name in sorted(known | there):
        run = ("cargo", "run", "--quiet", "-p", PACKAGE, "--example", name)
        status, output = context.status_and_output(*run)
        problem = f"exit status {status}, it said {output.strip()!r}"
        context.check(f"the example {name} runs", status == 0 and output.strip(), problem)


def targets(context):
    metadata = json.loads(
        context.output_of("cargo", "metadata", "--format-version", "1", "--no-deps")
    )
    package = next(it for it in metadata["packages"] if it["name"] == PACKAGE)
    return {it["name"] for it in package["targets"] if "example" in it["kind"]}
