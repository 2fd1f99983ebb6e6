//! Plain technical English in comments and text literals: words and phrases that hide the subject of a
//! sentence or the field's term, and what to write instead.
//!
//! The words of a file are compared one after the other, so that a phrase is found although a line end
//! divides it. A longer name, such as that of a metric, is another word.

use super::source::{Passage, Source};

/// A word or phrase in lower case, and what to write instead.
pub(super) const BANNED_WORDS: &[(&str, &str)] = &[
    ("nobody", "name what does not: \"no process\", \"no caller\""),
    ("somebody", "name who does: \"another process\", \"a caller\""),
    ("whoever", "name who: \"the caller\", \"the process that\""),
    ("anew", "\"again\", \"re-priced\", \"rebuilt\""),
    ("told", "\"notified\", \"published\", \"configured\", \"until shutdown\""),
    ("sees to it", "\"ensures\""),
    ("takes down", "\"records\""),
    ("given up", "\"failed\", \"dead-lettered\", \"abandoned\", \"timed out\", \"rejected\""),
    ("gives back", "\"releases\", \"returns\""),
    ("buried", "\"dead-lettered\""),
    ("brings about", "\"causes\""),
];

/// Where the rule does not hold: a path begins so.
pub(super) const EXCEPTIONS: &[&str] = &[
    // The list above.
    "crates/e2e/tests/it/tidy/words.rs",
    // An account of the operating system has such a name.
    "crates/e2e/src/account.rs",
];

/// Looks at the comments and text literals of a Rust file, and at all of a Lua script.
pub(super) fn complain_of_words(path: &str, text: &str) -> Vec<String> {
    if EXCEPTIONS.iter().any(|exception| path.starts_with(exception)) {
        return Vec::new();
    }
    let words = if path.ends_with(".rs") { words_of_rust(path, text) } else { words(1, text).collect() };
    let complaint = |(phrase, instead): &(&str, &str), line: usize| {
        format!("{path}:{line}: `{phrase}` is no plain technical English: write {instead}")
    };
    let complain = |banned: &(&str, &str)| -> Vec<String> {
        let phrase: Vec<&str> = banned.0.split(' ').collect();
        words
            .windows(phrase.len())
            .filter(|window| window.iter().map(|(_, word)| word.as_str()).eq(phrase.iter().copied()))
            .filter_map(|window| window.first().map(|(line, _)| complaint(banned, *line)))
            .collect()
    };
    BANNED_WORDS.iter().flat_map(complain).collect()
}

fn words_of_rust(path: &str, text: &str) -> Vec<(usize, String)> {
    let source = Source::new(path, text);
    let in_passage = |passage: &Passage| -> Vec<_> {
        words(source.line_of(passage.offset), &passage.text.replace("\\n", " ")).collect()
    };
    source.comments.iter().chain(&source.literals).flat_map(in_passage).collect()
}

/// The words of a text, in lower case, with their lines.
fn words(first_line: usize, text: &str) -> impl Iterator<Item = (usize, String)> {
    let is_outside_word = |c: char| !c.is_alphanumeric() && c != '_';
    text.lines().enumerate().flat_map(move |(index, line)| {
        let words = line.split(is_outside_word).filter(|word| !word.is_empty());
        words.map(move |word| (first_line + index, word.to_lowercase()))
    })
}
