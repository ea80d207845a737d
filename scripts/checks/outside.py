"""Kernels in repositories of their own, built from the packages as they are published: of the files that
the README shows, with guest/examples/hello.rs as the main; and each of scripts/outside, which has a main
and a manifest of its own, and the rest from there."""

import re
import shutil
import tempfile
from pathlib import Path

import image
import tools
from runner import ROOT
from tools import BARE_METAL

# A code block that says in its first line which file it is.
FILE = re.compile(r"^```\w+\n(?:#|//) ([\w./]+)(?:\n|: )(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {"Cargo.toml", "build.rs", ".cargo/config.toml"}
# A dependency that is a clone of this repository, as long as nobody has published it.
CLONE = re.compile(r'path = "\.\./xen-netfront[\w/]*"')


def check(context, packages):
    """`packages`: where each package is, unpacked."""
    text = (ROOT / "README.md").read_text()
    section = re.search(r"^## A kernel of your own\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    files = {found[1]: found[0] for found in FILE.finditer(section[1] if section else "")}
    if set(files) != FILES:
        context.fail(f"the README shows a kernel's files: {sorted(files)}, not {sorted(FILES)}")
        return
    files = {name: "\n".join(block.splitlines()[1:-1]) for name, block in files.items()}
    files["Cargo.toml"] = CLONE.sub('version = "*"', files["Cargo.toml"])
    files["src/main.rs"] = (ROOT / "guest/examples/hello.rs").read_text()
    build(context, packages, files, [["debug"], ["release", "--release"]])
    for program in sorted((ROOT / "scripts/outside").iterdir()):
        own = {str(path.relative_to(program)): path.read_text()
               for path in program.rglob("*") if path.suffix in (".rs", ".toml")}  # fmt: skip
        build(context, packages, files | own, [["debug"]])


def build(context, packages, files, profiles):
    name = re.search(r'^name = "(.+)"$', files["Cargo.toml"], re.MULTILINE)[1]
    manifest = files["Cargo.toml"] + "\n" + patch(packages)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for path, content in (files | {"Cargo.toml": manifest}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        # The versions that everything else is tested with.
        shutil.copy(ROOT / "Cargo.lock", folder)
        env = {"CARGO_TARGET_DIR": str(tools.target_dir() / "outside")}
        for profile, *options in profiles:
            # It is the folder one is in whose .cargo/config.toml counts.
            words = ("env", "-C", str(folder), "cargo", "build", *options)
            if context.command(*words, env=env):
                look_at(context, tools.target_dir() / "outside" / BARE_METAL / profile / name)


def patch(packages):
    """For a manifest: the packages stand for those of the registry."""
    lines = [f'{crate} = {{ path = "{folder}" }}' for crate, folder in packages.items()]
    return "\n".join(["[patch.crates-io]", *lines, ""])


def look_at(context, elf):
    context.check("the kernel is built for bare metal", elf.exists(), str(elf))
    headers = context.output_of("readelf", "-hnW", str(elf))
    context.check("it is linked where it runs", re.search(r"Type: +EXEC", headers), headers)
    # XEN_ELFNOTE_PHYS32_ENTRY
    note = re.search(r"^ +Xen\s.*0x00000012", headers, re.MULTILINE)
    context.check("it tells Xen where it starts", note, headers)
    image.p5_nothing_both_writable_and_executable(context, str(elf))
