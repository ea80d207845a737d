//! Where the program prints, and how wide that is.

use std::io::{self, IsTerminal, Write};

use terminal_size::Width;

use crate::args::Args;

/// Labels of a report's lines are so wide; what doesn't fit goes on below, not so far to the right.
const INDENT: usize = 4;

/// Standard output, or standard error where that is wanted for something else.
pub struct Console {
    out: Box<dyn Write>,
    terminal: bool,
    width: Option<usize>,
}

impl Console {
    /// For what comes while the run goes on.
    pub fn progress(args: &Args) -> Console {
        Console::new(args.json || args.captures_to_stdout())
    }

    /// For the report.
    pub fn report(args: &Args) -> Console {
        Console::new(args.captures_to_stdout())
    }

    fn new(stderr: bool) -> Console {
        let (out, terminal, size): (Box<dyn Write>, _, _) = if stderr {
            let own = io::stderr();
            let size = terminal_size::terminal_size_of(&own);
            (Box::new(io::stderr()), own.is_terminal(), size)
        } else {
            let own = io::stdout();
            let size = terminal_size::terminal_size_of(&own);
            (Box::new(io::stdout()), own.is_terminal(), size)
        };
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let width = size.map(|(Width(width), _)| width.into()).or_else(columns);
        Console { out, terminal, width: width.filter(|&width| width > 0) }
    }

    /// Whether a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns, if there is an end to them.
    pub fn width(&self) -> Option<usize> {
        self.width
    }

    /// Prints a text, its lines no longer than there is room for.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        match self.width {
            Some(width) => self.out.write_all(wrap(text, width).as_bytes())?,
            None => self.out.write_all(text.as_bytes())?,
        }
        self.out.flush()
    }

    /// Prints just this.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// The text with its lines broken between words, as far as there are words that short.
fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    for line in text.lines() {
        let own = line.len() - line.trim_start().len();
        let (mut rest, mut indent) = (line, 0);
        loop {
            let room = width.saturating_sub(indent).max(1);
            let cut = cut(rest, room, if indent == 0 { own } else { 0 });
            wrapped.extend(core::iter::repeat_n(' ', indent));
            wrapped.push_str(rest[..cut].trim_end());
            wrapped.push('\n');
            rest = rest[cut..].trim_start();
            if rest.is_empty() {
                break;
            }
            indent = (own + INDENT).min(width / 2);
        }
    }
    wrapped
}

/// Where to cut a line so that at most so many characters are before, none of the first `from`
/// bytes after: at a space if there is one.
fn cut(line: &str, most: usize, from: usize) -> usize {
    let Some((end, _)) = line.char_indices().nth(most) else { return line.len() };
    // A word may end right there.
    let fits = line.get(from..=end).and_then(|start| start.rfind(' ')).map(|space| from + space);
    let fits = fits.filter(|&space| !line[..space].trim().is_empty());
    fits.unwrap_or_else(|| line[end..].find(' ').map_or(line.len(), |space| end + space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let text = "label           one two three four\n\n  12 x thing with a name\nshort\n";
        assert_eq!(wrap(text, 100), text);
        let narrow =
            "label           one\n    two three four\n\n  12 x thing with a\n      name\nshort\n";
        assert_eq!(wrap(text, 19), narrow);
        assert_eq!(wrap("a-word-that-is-too-long b", 10), "a-word-that-is-too-long\n    b\n");
        assert_eq!(wrap("größer größer", 6), "größer\n   größer\n");
        for width in 1..40 {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let wrapped = wrap(text, width);
            assert_eq!(words(&wrapped), words(text), "{width}");
        }
    }
}
