"""The names of all Rust tests, read from the sources: what `cargo test` would compile, without
compiling it. The step `names` compares them with what cargo lists.

From each test target's root file on, modules are followed as the compiler follows them; what is
in a comment, a string or a function's body is no test, nor what a `cfg` leaves out.
"""

import json
import re
from pathlib import Path

from runner import StepError

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<comment>/\*)
    |(?P<raw>b?r(?P<hashes>\#*)".*?"(?P=hashes))
    |(?P<string>[bc]?"(?:\\.|[^"\\])*")
    |(?P<char>b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^\\'])')
    |(?P<word>'?(?:r\#)?\w+)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
COMMENT_EDGE = re.compile(r"/\*|\*/")
CLOSING = {"{": "}", "(": ")", "[": "]"}
# Macros around items that are compiled as they stand.
TRANSPARENT = ("proptest",)
# Macros that make a test of each row `name => ...`.
TABLES = ("frontend_tests",)
# What the compiler says of itself when tests are built here. Anything else is off.
CFG = {
    ("test", None), ("debug_assertions", None), ("unix", None), ("target_os", "linux"),
    ("target_family", "unix"), ("target_arch", "x86_64"), ("target_pointer_width", "64"),
    ("target_endian", "little"), ("panic", "unwind"),
}  # fmt: skip


class Package:
    """A package's test targets, and the features they are built with."""

    def __init__(self, metadata, all_features):
        self.features = set()
        known = metadata["features"]
        self._turn_on(known, list(known) if all_features else ["default"])
        self.roots = [
            target["src_path"]
            for target in metadata["targets"]
            if target["test"] and {"lib", "bin", "test"} & set(target["kind"])
            and self.features.issuperset(target.get("required-features") or ())
        ]  # fmt: skip

    def _turn_on(self, known, names):
        for name in names:
            if name in known and name not in self.features:
                self.features.add(name)
                self._turn_on(known, known[name])

    def is_on(self, key, value):
        return value in self.features if key == "feature" else (key, value) in CFG


def of_default_members(context):
    """As `cargo test --all-features` has them."""
    metadata = workspace(context)
    default = metadata["workspace_default_members"]
    return _of(package for package in metadata["packages"] if package["id"] in default)


def of_package(context, name):
    """As `cargo test -p` has them."""
    packages = workspace(context)["packages"]
    return _of((package for package in packages if package["name"] == name), all_features=False)


def workspace(context):
    return json.loads(context.output_of("cargo", "metadata", "--no-deps", "--format-version", "1"))


def _of(packages, all_features=True):
    names = set()
    for metadata in packages:
        package = Package(metadata, all_features)
        for root in package.roots:
            root = Path(root)
            names.update(File(package, root, root.parent).tests())
    return names


class File:
    """A source file, whose modules without a path of their own are in `folder`."""

    def __init__(self, package, path, folder):
        self.package = package
        self.path = path
        self.folder = folder

    def tests(self):
        try:
            text = self.path.read_text()
        except OSError as error:
            raise StepError(f"a module has no file: {error}") from None
        return list(self._items(tokens(text), self.folder))

    def _items(self, stream, folder):
        """The tests of a module, of which the rest is in `stream`."""
        attributes = []
        position = 0
        while position < len(stream):
            token, after = stream[position], stream[position + 1 : position + 3]
            if token == "#" and after[:1] == ["["]:
                end = closing(stream, position + 1)
                attributes += self._attributes(stream[position + 2 : end])
            elif token == "#" and after == ["!", "["]:
                end = closing(stream, position + 2)
                if not self._is_on(self._attributes(stream[position + 3 : end])):
                    return
            elif token == "mod" and after[1:] == [";"]:
                end = position + 2
                if self._is_on(attributes):
                    yield from self._module(after[0], attributes, folder)
                attributes = []
            elif token == "mod" and after[1:] == ["{"]:
                end = closing(stream, position + 2)
                if self._is_on(attributes):
                    yield from self._items(stream[position + 3 : end], folder / after[0])
                attributes = []
            elif token == "fn" and after:
                end = end_of_function(stream, position)
                if ["test"] in attributes and self._is_on(attributes):
                    yield after[0].removeprefix("r#")
                attributes = []
            elif token in TRANSPARENT and after[:1] == ["!"] and after[1:] == ["{"]:
                end = closing(stream, position + 2)
                if self._is_on(attributes):
                    yield from self._items(stream[position + 3 : end], folder)
                attributes = []
            elif token in TABLES and after[:1] == ["!"] and after[1:] == ["{"]:
                end = closing(stream, position + 2)
                if self._is_on(attributes):
                    yield from rows(stream[position + 3 : end])
                attributes = []
            elif token in CLOSING:
                end = closing(stream, position)
                # The body of something else; parentheses may be in the middle of an item.
                attributes = [] if token == "{" else attributes
            else:
                end = position
                attributes = [] if token == ";" else attributes
            position = end + 1

    def _module(self, name, attributes, folder):
        name = name.removeprefix("r#")
        paths = [words[2] for words in attributes if words[:2] == ["path", "="]]
        if paths:
            # A file with a path of its own is like a mod.rs.
            path = self.path.parent / unquoted(paths[0])
            return File(self.package, path, path.parent).tests()
        path = folder / f"{name}.rs"
        if not path.exists():
            path = folder / name / "mod.rs"
        return File(self.package, path, folder / name).tests()

    def _attributes(self, words):
        """An attribute, or those that a `cfg_attr` stands for."""
        if words[:2] != ["cfg_attr", "("]:
            return [words]
        condition, *rest = arguments(words[2:-1])
        if not self._holds(condition):
            return []
        return [one for attribute in rest for one in self._attributes(attribute)]

    def _is_on(self, attributes):
        return all(self._holds(words[2:-1]) for words in attributes if words[:2] == ["cfg", "("])

    def _holds(self, words):
        if words[1:2] == ["("]:
            parts = [self._holds(part) for part in arguments(words[2:-1])]
            return {"all": all(parts), "any": any(parts), "not": not all(parts)}[words[0]]
        value = unquoted(words[2]) if words[1:2] == ["="] else None
        return words == ["true"] or self.package.is_on(words[0], value)


def tokens(text):
    found = []
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        position = match.end()
        if match.lastgroup == "comment" or match["comment"]:
            position = end_of_comment(text, position)
        elif not match["space"]:
            found.append(match[0])
    return found


def end_of_comment(text, position):
    """Comments may be within comments."""
    depth = 1
    while depth:
        edge = COMMENT_EDGE.search(text, position)
        if not edge:
            return len(text)
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position


def closing(stream, opening):
    """Where the bracket closes that opens there."""
    expected = []
    for position in range(opening, len(stream)):
        token = stream[position]
        if token in CLOSING:
            expected.append(CLOSING[token])
        elif expected and token == expected[-1]:
            expected.pop()
            if not expected:
                return position
    raise StepError(f"a bracket does not close: {' '.join(stream[opening : opening + 12])} ...")


def end_of_function(stream, position):
    """The end of its body, or the semicolon in place of one."""
    while position < len(stream):
        if stream[position] == ";":
            return position
        if stream[position] in CLOSING:
            end = closing(stream, position)
            if stream[position] == "{":
                return end
            position = end
        position += 1
    return position


def rows(words):
    """The first words of `name => ...`."""
    return [name for name, *arrow in zip(words, words[1:], words[2:]) if arrow == ["=", ">"]]


def arguments(words):
    """What commas separate that are in no brackets."""
    parts = [[]]
    position = 0
    while position < len(words):
        if words[position] in CLOSING:
            end = closing(words, position)
            parts[-1] += words[position : end + 1]
            position = end
        elif words[position] == ",":
            parts.append([])
        else:
            parts[-1].append(words[position])
        position += 1
    return [part for part in parts if part]


def unquoted(string):
    return string.strip('"')
