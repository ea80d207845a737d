//! The files that a run reads and writes: none of them overwrites another. `-` is standard input,
//! or standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
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
    if [Handle::stdout(), Handle::stderr()].into_iter().flatten().any(|own| is_same(&own, &file)) {
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
    if input.is_some_and(|input| is_same(&own, input)) {
        return Err(Error::pcap(path, &"this is the file that --replay reads"));
    }
    let printed = [Handle::stdout(), Handle::stderr()];
    // What has standard output for itself is not printed there.
    let printed = printed.into_iter().skip(usize::from(is_standard(path))).flatten();
    if printed.into_iter().any(|printed| is_same(&own, &printed)) {
        return Err(Error::pcap(path, &"what is printed goes to this very file"));
    }
    let file = own.as_file().try_clone().map_err(fail)?;
    if !is_standard(path) && is_regular(&own) {
        file.set_len(0).map_err(fail)?;
    }
    Ok(file)
}

/// Whether writing one spoils the other: terminals and the like have no contents to spoil.
fn is_same(one: &Handle, other: &Handle) -> bool {
    one == other && is_regular(one)
}

fn is_regular(file: &Handle) -> bool {
    file.as_file().metadata().is_ok_and(|metadata| metadata.is_file())
}
