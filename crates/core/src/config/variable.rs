//! Environment variables: name, default, allowed values and meaning, and the text of `--help`.
//! `docs/configuration.md` is generated from the same tables.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A setting that is read from the environment.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The variable's name.
    pub name: &'static str,
    /// The value used if it is unset or empty; empty if there is none.
    pub default: &'static str,
    /// The values it accepts.
    pub allowed: Allowed,
    /// The services that use it; the others only check it.
    pub used_by: &'static str,
    /// The setting's description.
    pub text: &'static str,
    /// Whether a value may contain a password and so must not be shown.
    pub is_secret: bool,
}

/// The values that a variable accepts.
#[derive(Debug, Clone)]
pub enum Allowed {
    /// Any text; describes its meaning.
    Text(&'static str),
    /// A whole number within these bounds.
    Whole(RangeInclusive<u64>),
    /// A number from 0 to 1.
    Fraction,
    /// A duration with its unit, within these bounds.
    Duration(RangeInclusive<Duration>),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Log levels, global or per target.
    LogFilter,
    /// An address and a port to listen on.
    Socket,
    /// `true` or `false`, in any case.
    Boolean,
    /// An address of HTTP with a host; or `off`, if it may be that.
    HttpUrl {
        /// Whether it may be `off`.
        may_be_off: bool,
    },
    /// An address with one of these schemes.
    Url(&'static [&'static str]),
}

impl Allowed {
    /// Whether a variable may have this value.
    pub(super) fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Whole(bounds) => value.parse().is_ok_and(|number| bounds.contains(&number)),
            Self::Fraction => value.parse().is_ok_and(|fraction| (0.0..=1.0).contains(&fraction)),
            Self::Duration(bounds) => {
                humantime::parse_duration(value).is_ok_and(|duration| bounds.contains(&duration))
            }
            Self::OneOf(words) => words.contains(&value),
            Self::LogFilter => is_log_filter(value),
            Self::Socket => value.parse::<SocketAddr>().is_ok(),
            Self::Boolean => ["true", "false"].iter().any(|word| word.eq_ignore_ascii_case(value)),
            Self::HttpUrl { may_be_off } => (*may_be_off && value == "off") || is_http_url(value),
            Self::Url(schemes) => schemes.iter().any(|scheme| value.starts_with(scheme)),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(meaning) => formatter.write_str(meaning),
            Self::Whole(bounds) => {
                write!(formatter, "a whole number from {} to {}", bounds.start(), bounds.end())
            }
            Self::Fraction => formatter.write_str("a number from 0 to 1"),
            Self::Duration(bounds) => {
                let [from, to] = [bounds.start(), bounds.end()].map(|end| humantime::format_duration(*end));
                write!(formatter, "a duration with its unit, such as 250ms or 30s, from {from} to {to}")
            }
            Self::OneOf(words) => formatter.write_str(&listed(words)),
            Self::LogFilter => formatter.write_str(
                "a level (off, error, warn, info, debug, trace) or target=level pairs with commas",
            ),
            Self::Socket => formatter.write_str("an address and a port, such as 127.0.0.1:8000"),
            Self::Boolean => formatter.write_str("true or false"),
            Self::HttpUrl { may_be_off } => {
                let or_off = if *may_be_off { ", or off" } else { "" };
                write!(formatter, "an address that begins with http:// or https://{or_off}")
            }
            Self::Url(schemes) => write!(formatter, "an address that begins with {}", listed(schemes)),
        }
    }
}

/// Joins the words with commas, and `or` before the last.
fn listed(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.concat(),
    }
}

/// Whether this is an address of HTTP with a host, without white space.
fn is_http_url(written: &str) -> bool {
    let has_scheme = ["http://", "https://"].iter().any(|scheme| written.starts_with(scheme));
    let is_url = reqwest::Url::parse(written).is_ok_and(|url| url.has_host());
    has_scheme && is_url && !written.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Whether each part of a log filter has a level: without one it would be read as a target.
fn is_log_filter(written: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level_of = |part: &str| part.rsplit_once('=').map_or(part, |(_, level)| level).trim().to_lowercase();
    written.split(',').all(|part| part.trim().is_empty() || LEVELS.contains(&level_of(part).as_str()))
}

/// The variable as `--help` shows it.
impl fmt::Display for Variable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const INDENT: &str = "        ";
        writeln!(formatter, "    {}", self.name)?;
        for line in wrapped(self.text, 110 - INDENT.len()) {
            writeln!(formatter, "{INDENT}{line}")?;
        }
        let default = if self.default.is_empty() { "none" } else { self.default };
        writeln!(formatter, "{INDENT}Default: {default}")?;
        for line in wrapped(&format!("Allowed: {}", self.allowed), 110 - INDENT.len()) {
            writeln!(formatter, "{INDENT}{line}")?;
        }
        if self.is_secret {
            writeln!(formatter, "{INDENT}Secret: may contain a password")?;
        }
        writeln!(formatter, "{INDENT}Used by: {}", self.used_by)
    }
}

/// Wraps the text between words into lines of at most `most` characters.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_has_levels() {
        for (written, expected) in [
            ("info,", true),
            ("WARN,sqlx=off", true),
            ("inof", false),
            ("pricing_core", false),
            ("a=loud", false),
        ] {
            assert_eq!(is_log_filter(written), expected, "{written}");
        }
    }

    #[test]
    fn bounds_are_part_of_what_is_allowed() {
        let seconds = Duration::from_secs;
        for (allowed, value, expected) in [
            (Allowed::Whole(3..=200), "3", true),
            (Allowed::Whole(3..=200), "201", false),
            (Allowed::Whole(3..=200), "-3", false),
            (Allowed::Fraction, "1", true),
            (Allowed::Fraction, "1.01", false),
            (Allowed::Fraction, "NaN", false),
            (Allowed::Duration(seconds(0)..=seconds(3_600)), "1h", true),
            (Allowed::Duration(seconds(0)..=seconds(3_600)), "30", false),
            (Allowed::Duration(seconds(0)..=seconds(3_600)), "61m", false),
            (Allowed::OneOf(&["on", "off"]), "on", true),
            (Allowed::OneOf(&["on", "off"]), "On", false),
            (Allowed::Socket, "127.0.0.1:8000", true),
            (Allowed::Socket, "localhost:8000", false),
            (Allowed::Boolean, "True", true),
            (Allowed::Boolean, "1", false),
            (Allowed::HttpUrl { may_be_off: true }, "off", true),
            (Allowed::HttpUrl { may_be_off: false }, "off", false),
            (Allowed::HttpUrl { may_be_off: false }, "https://user:secret@host:4318/path", true),
            (Allowed::HttpUrl { may_be_off: false }, "127.0.0.1:4317", false),
            (Allowed::HttpUrl { may_be_off: false }, "collector:4317", false),
            (Allowed::HttpUrl { may_be_off: false }, "grpc://collector:4317", false),
            (Allowed::HttpUrl { may_be_off: false }, "http://", false),
            (Allowed::HttpUrl { may_be_off: false }, "http://a b", false),
            (Allowed::Url(&["redis://", "rediss://"]), "rediss://host", true),
            (Allowed::Url(&["redis://", "rediss://"]), "http://host", false),
        ] {
            assert_eq!(allowed.accepts(value), expected, "{value}: {allowed}");
        }
    }

    #[test]
    fn choices_are_listed_as_in_a_sentence() {
        assert_eq!(Allowed::OneOf(&["auto", "json", "text"]).to_string(), "auto, json or text");
        assert_eq!(Allowed::OneOf(&["on"]).to_string(), "on");
    }

    #[test]
    fn lines_of_help_break_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("longer-than-a-line one", 7), ["longer-than-a-line", "one"]);
    }
}
