"""What names.py takes for a test, and what not."""

import tempfile
import unittest
from pathlib import Path

import names

METADATA = {"features": {"default": ["a"], "a": ["b"], "b": [], "c": []}, "targets": []}


def found(files, all_features=True):
    """The tests of a target whose files are these; the first is its root."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        root = Path(folder, next(iter(files)))
        package = names.Package(METADATA, all_features)
        return names.File(package, root, root.parent).tests()


class Items(unittest.TestCase):
    def same(self, text, *expected):
        self.assertEqual(found({"lib.rs": text}), list(expected), text)

    def test_functions(self):
        self.same("#[test] fn a() {} #[test]\n#[ignore]\npub fn b() -> R<()> { x() }", "a", "b")
        self.same("/// Why.\n#[test]\n#[should_panic(expected = \"}\")]\nfn a() {}", "a")
        self.same("fn a() {} #[tests] fn b() {} #[cfg(test)] fn c() {}")
        self.same("#[test] struct A; fn a() {} #[test] enum B {} fn b() {}")

    def test_what_only_looks_like_code(self):
        self.same("// #[test] fn a() {}\n/* #[test] fn b() {} /* */ #[test] fn c() {} */")
        self.same('const A: &str = "#[test] fn a() {}"; const B: &str = r#"" #[test] fn b() {}"#;')
        self.same("const A: char = '\"'; #[test] fn a<'b>() {} const B: char = '\\'';", "a")
        self.same("#[test] fn a() { let b = '{'; let c = \"{\"; } #[test] fn d() {}", "a", "d")

    def test_what_is_within_something_else(self):
        self.same("fn a() { #[test] fn b() {} } impl A { #[test] fn c() {} }")
        self.same("macro_rules! a { () => { #[test] fn b() {} } } a! { #[test] fn c() {} }")
        self.same("proptest! { #![config(x)] #[test] fn a(b in 0..1) {} }", "a")
        self.same("frontend_tests! { A: a => x, #[ignore] b => x, } #[test] fn c() {}", "a", "b", "c")
        self.same("macro_rules! frontend_tests { ($a:ident => $b:ident) => { #[test] fn $a() {} } }")
        self.same("mod a { mod b { #[test] fn c() {} } } #[test] fn d() {}", "c", "d")

    def test_configurations(self):
        for on in ("test", "all()", "any(test, nope)", "not(loom)", 'feature = "c"',
                   'all(test, not(any(loom, miri)))', 'target_os = "linux"'):  # fmt: skip
            self.same(f"#[cfg({on})] #[test] fn a() {{}}", "a")
            self.same(f"#[cfg({on})] mod a {{ #[test] fn a() {{}} }}", "a")
            self.same(f"#![cfg({on})] #[test] fn a() {{}}", "a")
            self.same(f"#[cfg_attr({on}, test)] fn a() {{}}", "a")
        for off in ("any()", "loom", "not(test)", 'feature = "d"', "all(test, nope)", "false"):
            self.same(f"#[test] #[cfg({off})] fn a() {{}} #[test] fn b() {{}}", "b")
            self.same(f"#[cfg({off})] mod a {{ #[test] fn a() {{}} }} #[test] fn b() {{}}", "b")
            self.same(f"#![cfg({off})] #[test] fn a() {{}}")
            self.same(f"#[cfg({off})] mod no_such_file; #[test] fn a() {{}}", "a")
            self.same(f"#[cfg_attr({off}, test)] fn a() {{}}")
            self.same(f"#[cfg_attr(test, cfg({off}))] #[test] fn a() {{}}")

    def test_features(self):
        text = {"lib.rs": "".join(
            f'#[cfg(feature = "{name}")] #[test] fn {name}() {{}} ' for name in "abc"
        )}  # fmt: skip
        self.assertEqual(found(text), ["a", "b", "c"])
        self.assertEqual(found(text, all_features=False), ["a", "b"])


class Files(unittest.TestCase):
    def test_modules(self):
        def test(name):
            return f"#[test] fn {name}() {{}}"

        files = {
            "lib.rs": "mod a; pub(crate) mod b; mod c { mod d; } #[path = \"x/e.rs\"] mod y;",
            "a.rs": f"mod g; {test('a')}",
            "a/g.rs": test("g"),
            "b/mod.rs": f"mod h; {test('b')}",
            "b/h.rs": test("h"),
            "c/d.rs": test("d"),
            "x/e.rs": f"mod i; {test('e')}",
            "x/i.rs": test("i"),
            "orphan.rs": test("orphan"),
        }
        self.assertEqual(sorted(found(files)), list("abdeghi"))

    def test_a_module_without_a_file(self):
        with self.assertRaises(names.StepError):
            found({"lib.rs": "mod a;"})


if __name__ == "__main__":
    unittest.main()
