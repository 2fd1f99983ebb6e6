//! What people and other programs read: standard output, error messages, exit codes, colours.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};

use crate::client::ClientError;

/// The work failed, or some rows of it.
pub(crate) const FAILED: u8 = 1;
/// No service answers (`EX_UNAVAILABLE`).
pub(crate) const UNREACHABLE: u8 = 69;

/// Writes a text and a line end to standard output.
pub(crate) fn show(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // `pricing explain … | head -3` has read what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a message and a line end to standard error; if that is closed, nobody is there to be told.
pub(crate) fn note(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Says why the work failed; gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    note(&format!("pricing: {error:#}"));
    match error.downcast_ref() {
        Some(ClientError::Unreachable { .. }) => ExitCode::from(UNREACHABLE),
        _ => ExitCode::from(FAILED),
    }
}

/// The width of tables where there is no terminal to ask.
const DEFAULT_WIDTH: u16 = 120;

/// A table with these headings, as wide as the terminal.
pub(crate) fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(DEFAULT_WIDTH);
    }
    table.set_header(headings);
    table
}

/// An instant of an answer without the decimals of its seconds, which are for programs.
pub(crate) fn to_the_second(instant: &str) -> String {
    match instant.split_once('.') {
        Some((seconds, rest)) => {
            format!("{seconds}{}", rest.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        }
        None => instant.to_owned(),
    }
}

/// A colour that carries meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    /// All is well.
    Green,
    /// Worth a look.
    Yellow,
    /// Wrong.
    Red,
}

/// The text in this colour, if `colours` are wanted.
pub(crate) fn paint(text: &str, colour: Colour, colours: bool) -> String {
    let code = match colour {
        _ if !colours => return text.to_owned(),
        Colour::Green => 32,
        Colour::Yellow => 33,
        Colour::Red => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Whether standard output should have colours: it is a terminal, and `NO_COLOR` is not set.
pub(crate) fn colours_wanted() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_shown_to_the_second() {
        for (instant, shown) in [
            ("2026-11-30T12:19:42.741896640Z", "2026-11-30T12:19:42Z"),
            ("2026-11-30T12:19:42.5+01:00", "2026-11-30T12:19:42+01:00"),
            ("2026-11-30T12:19:42Z", "2026-11-30T12:19:42Z"),
        ] {
            assert_eq!(to_the_second(instant), shown);
        }
    }
}
