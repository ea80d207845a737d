"""What each crate publishes: that it can be, that it is whole, that it is all that others need, and
which Rust it takes."""

import re
import shutil
import tempfile
from pathlib import Path

import names
import outside
import tools
from runner import ROOT
from tools import BARE_METAL

# What belongs into a package, besides Cargo's own files.
WANTED = {"LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"}
ALLOWED = re.compile(r"(src|docs)/.+|examples/hello\.rs|build\.rs|LICENSE-\w+|README\.md")
CARGOS_OWN = {"Cargo.toml", "Cargo.toml.orig", "Cargo.lock", ".cargo_vcs_info.json"}
# Bytes of a compressed package: notices a capture, or a picture.
MOST = 300_000


def check(context):
    # All at once, in the order in which they need each other. Whoever runs this may be in the middle of
    # a change. Cargo would build them, too, but from what it once unpacked of the same version.
    unbuilt = ("--no-verify", "--allow-dirty")
    context.command("cargo", "publish", "--workspace", "--dry-run", *unbuilt)
    crates = published(context)
    chosen = [word for crate in crates for word in ("-p", crate["name"])]
    context.setup("cargo", "package", *unbuilt, *chosen)
    with tempfile.TemporaryDirectory() as folder:
        packages = {}
        for crate in crates:
            name = f"{crate['name']}-{crate['version']}"
            archive = tools.target_dir() / "package" / f"{name}.crate"
            context.setup("tar", "-xzf", str(archive), "-C", folder)
            packages[crate["name"]] = Path(folder) / name
            whole(context, Path(folder) / name)
            size = archive.stat().st_size
            context.check(f"{name} is small", size <= MOST, f"{size} bytes")
        together(context, Path(folder), packages)
        outside.check(context, packages)


def whole(context, package):
    """A package has what its readers and its licence ask for, and nothing else."""
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    missing = sorted(WANTED - files)
    context.check(f"{package.name} lacks nothing", not missing, ", ".join(missing))
    strange = sorted(name for name in files - CARGOS_OWN if not ALLOWED.fullmatch(name))
    context.check(f"{package.name} has nothing else", not strange, ", ".join(strange))


def together(context, folder, packages):
    """The packages build with all their features, and with no file that was not packed."""
    members = ", ".join(f'"{package.name}"' for package in packages.values())
    manifest = f'[workspace]\nresolver = "3"\nmembers = [{members}]\n{outside.patch(packages)}'
    (folder / "Cargo.toml").write_text(manifest)
    shutil.copy(ROOT / "Cargo.lock", folder)
    env = {"CARGO_TARGET_DIR": str(tools.target_dir() / "outside")}
    words = ("env", "-C", str(folder), "cargo", "build", "--workspace", "--all-features")
    context.command(*words, "--target", BARE_METAL, env=env)


def oldest(context):
    """Each crate builds with the Rust that the manifests name, or with smoltcp's where that is newer."""
    crates = published(context)
    versions = sorted({str(crate["rust_version"]) for crate in crates})
    context.check("all crates name one Rust", len(versions) == 1, ", ".join(versions))
    about = context.output_of("cargo", "info", "smoltcp")
    (smoltcp,) = re.findall(r"^rust-version: (\S+)$", about, re.MULTILINE)
    bare = [word for crate in crates for word in ("-p", crate["name"])]
    for version, words in (
        (versions[0], ["--no-default-features", *bare]),
        (smoltcp, ["-p", "xen-guest", "-p", "xen-netfront", "--features", "xen-netfront/embassy"]),
    ):
        minor = ".".join(version.split(".")[:2])
        version = f"{minor}.0"
        tools.toolchain(context, version)
        env = {"CARGO_TARGET_DIR": str(tools.target_dir() / "oldest")}
        context.command("cargo", f"+{version}", "check", "--target", BARE_METAL, *words, env=env)
        named = f"Rust {minor}" in (ROOT / "README.md").read_text()
        context.check(f"the README names Rust {minor}", named)


def published(context):
    """The crates that others may use, as cargo describes them."""
    packages = names.workspace(context)["packages"]
    return [package for package in packages if package["publish"] != []]
