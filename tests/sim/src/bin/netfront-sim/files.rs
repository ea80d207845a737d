//! The files that a run reads and writes: none of them overwrites another. `-` is standard input,
//! or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use same_file::Handle;

use crate::error::Error;

/// Whether a path stands for standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opens the file that `--replay` names. What is printed must not go into it.
pub fn input(path: &Path) -> Result<Handle, Error> {
    let fail = |error: io::Error| Error::replay(path, &error);
    let file = if is_standard(path) {
        if io::stdin().is_terminal() {
            return Err(Error::replay(
                path,
                &"standard input is a terminal: redirect a file to it",
            ));
        }
        Handle::stdin()
    } else {
        File::open(path).and_then(Handle::from_file)
    };
    let file = file.map_err(fail)?;
    let mut printed = [Handle::stdout(), Handle::stderr()].into_iter().flatten();
    if is_regular(&file) && printed.any(|printed| printed == file) {
        return Err(Error::replay(path, &"what is printed goes to this very file"));
    }
    Ok(file)
}

/// Opens the file that `--pcap` names, empty. `input` must not be the same, nor what is printed.
pub fn output(path: &Path, input: Option<&Handle>) -> Result<File, Error> {
    let fail = |error: io::Error| Error::pcap(path, &error);
    let own = if is_standard(path) {
        if io::stdout().is_terminal() {
            return Err(Error::pcap(path, &"standard output is a terminal: redirect it"));
        }
        Handle::stdout()
    } else {
        // Its contents stay until it is known that nobody else wants them.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        file.and_then(Handle::from_file)
    };
    let own = own.map_err(fail)?;
    if input.is_some_and(|input| *input == own && is_regular(&own)) {
        return Err(Error::pcap(path, &"this is the file that --replay reads"));
    }
    let printed = [Handle::stdout(), Handle::stderr()];
    // What has standard output for itself is not printed there.
    let mut printed = printed.into_iter().skip(usize::from(is_standard(path))).flatten();
    if !is_device(&own) && printed.any(|printed| printed == own) {
        return Err(Error::pcap(path, &"what is printed goes there as well (- keeps them apart)"));
    }
    let file = own.as_file().try_clone().map_err(fail)?;
    if !is_standard(path) && is_regular(&own) {
        file.set_len(0).map_err(fail)?;
    }
    Ok(file)
}

/// Whether it has contents that can be overwritten.
fn is_regular(file: &Handle) -> bool {
    file.as_file().metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Whether it is like /dev/null, where it does not matter who else writes.
fn is_device(file: &Handle) -> bool {
    let metadata = file.as_file().metadata();
    metadata.is_ok_and(|metadata| metadata.file_type().is_char_device())
}
