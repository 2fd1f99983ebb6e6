//! Output for people and for other programs: standard output, error messages, exit codes, colours.

use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::AnsiColor;
use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};

use crate::client::ClientError;

/// The exit code if the work failed, or some rows of it.
pub(crate) const FAILED: u8 = 1;
/// The exit code if no service answers (`EX_UNAVAILABLE`).
pub(crate) const UNREACHABLE: u8 = 69;

/// Writes a text and a line end to standard output.
pub(crate) fn show(text: &str) -> io::Result<()> {
    write_line(io::stdout().lock(), text)
}

/// As [`show`], for a coloured text; strips the colours without a terminal or with `NO_COLOR`.
pub(crate) fn show_coloured(text: &str) -> io::Result<()> {
    write_line(anstream::stdout().lock(), text)
}

fn write_line(mut stdout: impl Write, text: &str) -> io::Result<()> {
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        // The reader has ended, as in `pricing explain … | head -3`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a message and a line end to standard error; if that is closed, nothing can be reported.
pub(crate) fn note(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Prints why the work failed; returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    note(&format!("pricing: {error:#}"));
    match error.downcast_ref() {
        Some(ClientError::Unreachable { .. }) => ExitCode::from(UNREACHABLE),
        _ => ExitCode::from(FAILED),
    }
}

/// The width of tables without a terminal.
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

/// An instant of an answer without its fractional seconds, which are for programs.
pub(crate) fn to_the_second(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// An instant as it is in the answer.
pub(crate) fn in_full(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Colours a text, for [`show_coloured`].
pub(crate) fn paint(text: &str, colour: AnsiColor) -> String {
    let style = colour.on_default();
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_painted_text_is_the_same_without_its_colour() {
        let painted = paint("ok", AnsiColor::Green);
        assert_eq!(painted, "\u{1b}[32mok\u{1b}[0m");
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), "ok");
    }

    #[test]
    fn an_instant_is_shown_to_the_second_or_in_full() {
        for written in ["2026-11-30T12:19:42.741896640Z", "2026-11-30T12:19:42.500Z", "2026-11-30T12:19:42Z"]
        {
            let instant = written.parse().unwrap();
            assert_eq!(to_the_second(instant), "2026-11-30T12:19:42Z");
            assert_eq!(in_full(instant), written);
        }
    }
}
