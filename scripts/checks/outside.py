"""A kernel in a repository of its own, built as the README says: from the files it shows, with
guest/examples/hello.rs as its main."""

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


def check(context):
    text = (ROOT / "README.md").read_text()
    section = re.search(r"^## A kernel of your own\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    files = {found[1]: found[0] for found in FILE.finditer(section[1] if section else "")}
    if set(files) != FILES:
        context.fail(f"the README shows a kernel's files: {sorted(files)}, not {sorted(FILES)}")
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, block in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            content = "\n".join(block.splitlines()[1:-1]).replace("../xen-netfront", str(ROOT))
            path.write_text(content)
        (folder / "src").mkdir()
        shutil.copy(ROOT / "guest/examples/hello.rs", folder / "src/main.rs")
        # The versions that everything else is tested with.
        shutil.copy(ROOT / "Cargo.lock", folder)
        env = {"CARGO_TARGET_DIR": str(tools.target_dir() / "outside")}
        for profile, *options in (["debug"], ["release", "--release"]):
            # It is the folder one is in whose .cargo/config.toml counts.
            build = ("env", "-C", str(folder), "cargo", "build", *options)
            if context.command(*build, env=env):
                look_at(context, tools.target_dir() / "outside" / BARE_METAL / profile / "my-kernel")


def look_at(context, elf):
    context.check("the kernel is built for bare metal", elf.exists(), str(elf))
    headers = context.output_of("readelf", "-hnW", str(elf))
    context.check("it is linked where it runs", re.search(r"Type: +EXEC", headers), headers)
    # XEN_ELFNOTE_PHYS32_ENTRY
    note = re.search(r"^ +Xen\s.*0x00000012", headers, re.MULTILINE)
    context.check("it tells Xen where it starts", note, headers)
    image.p5_nothing_both_writable_and_executable(context, str(elf))
