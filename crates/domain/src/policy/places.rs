//! The positions of a policy's fields in its document, for editors and error messages.

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::diagnostic::{Diagnostic, Location};

/// The positions of all fields of a YAML or JSON document, by path: `market[2].when`.
#[derive(Debug, Default)]
pub(crate) struct Places<'d> {
    document: &'d str,
    fields: HashMap<String, Location>,
    texts: HashMap<String, Text>,
}

/// The text of a field, and its position in the document.
#[derive(Debug)]
struct Text {
    text: String,
    style: ScalarStyle,
    /// The number of characters before it in the document.
    start: usize,
    place: Location,
}

/// A mapping or a sequence that is being read.
enum Open {
    /// A mapping, with the key whose value comes next.
    Mapping { path: String, key: Option<String> },
    /// A sequence, with the number of items read so far.
    Sequence { path: String, items: usize },
}

impl<'d> Places<'d> {
    /// Finds the positions in a document; fields after a syntax error are left out.
    pub(crate) fn of(document: &'d str) -> Self {
        let mut places = Self { document, ..Self::default() };
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(document) {
            let Ok((event, span)) = event else { break };
            match event {
                Event::Scalar(text, style, ..) => {
                    if let Some(Open::Mapping { path, key: key @ None }) = open.last_mut() {
                        places.fields.insert(join(path, &text), place(&span));
                        *key = Some(text.into_owned());
                    } else {
                        let path = places.take(&mut open, &span);
                        let start = span.start.index();
                        let text = Text { text: text.into_owned(), style, start, place: place(&span) };
                        places.texts.insert(path, text);
                    }
                }
                Event::Alias(_) => {
                    places.take(&mut open, &span);
                }
                Event::MappingStart(..) => {
                    let path = places.take(&mut open, &span);
                    open.push(Open::Mapping { path, key: None });
                }
                Event::SequenceStart(..) => {
                    let path = places.take(&mut open, &span);
                    open.push(Open::Sequence { path, items: 0 });
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    open.pop();
                }
                _ => {}
            }
        }
        places
    }

    /// Sets the position of a diagnostic: that of its field or, if that is missing, of its parent; in an
    /// expression, that of the offending part.
    pub(crate) fn locate(&self, diagnostic: &mut Diagnostic) {
        if let (Some(offset), Some(text)) = (diagnostic.offset, self.texts.get(&diagnostic.field)) {
            diagnostic.place = text.place_of(offset, self.document);
        }
        let mut path = diagnostic.field.as_str();
        while diagnostic.place.is_none() && !path.is_empty() {
            diagnostic.place = self.fields.get(path).copied();
            path = path.rfind(['.', '[']).and_then(|end| path.get(..end)).unwrap_or_default();
        }
    }

    /// Returns the path of the value that begins here; records the position of an item.
    fn take(&mut self, open: &mut [Open], span: &Span) -> String {
        match open.last_mut() {
            None => String::new(),
            Some(Open::Mapping { path, key }) => join(path, &key.take().unwrap_or_default()),
            Some(Open::Sequence { path, items }) => {
                let item = format!("{path}[{items}]");
                *items += 1;
                self.fields.insert(item.clone(), place(span));
                item
            }
        }
    }
}

impl Text {
    /// Returns the position of the part that begins at this byte of the text. Text and document are compared
    /// without white space, which folding changes; `None` for escapes that no expression needs.
    fn place_of(&self, offset: usize, document: &str) -> Option<Location> {
        let mut raw = Raw { chars: document.chars().peekable(), place: self.place };
        for _ in 0..self.start {
            raw.chars.next();
        }
        match self.style {
            ScalarStyle::Plain => {}
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => drop(raw.next()),
            // The text of a block scalar begins after the line of its indicator.
            ScalarStyle::Literal | ScalarStyle::Folded => {
                if raw.chars.next_if(|mark| matches!(mark, '|' | '>')).is_some() {
                    while raw.next()? != '\n' {}
                }
            }
        }
        let before = self.text.get(..offset)?;
        for wanted in before.chars().filter(|wanted| !wanted.is_whitespace()) {
            raw.skip_white_space(self.style);
            if raw.next()? == '\\' && self.style == ScalarStyle::DoubleQuoted && wanted != '\\' {
                raw.chars.next_if_eq(&wanted)?;
                raw.place.column += 1;
            } else if wanted == '\'' && self.style == ScalarStyle::SingleQuoted {
                raw.next();
            }
        }
        raw.skip_white_space(self.style);
        Some(raw.place)
    }
}

/// The raw document from a position on.
struct Raw<'d> {
    chars: Peekable<Chars<'d>>,
    place: Location,
}

impl Raw<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next()?;
        if next == '\n' {
            self.place = Location { line: self.place.line.saturating_add(1), column: 1 };
        } else {
            self.place.column = self.place.column.saturating_add(1);
        }
        Some(next)
    }

    fn skip_white_space(&mut self, style: ScalarStyle) {
        while let Some(next) = self.chars.peek().copied() {
            let mut ahead = self.chars.clone().skip(1);
            // In double quotes, `\n`, `\t` and a backslash at the end of a line stand for white space.
            let is_escape = style == ScalarStyle::DoubleQuoted
                && next == '\\'
                && ahead.next().is_some_and(|next| matches!(next, 'n' | 't' | 'r' | ' ' | '\n'));
            if is_escape {
                self.next();
            } else if !next.is_whitespace() {
                return;
            }
            self.next();
        }
    }
}

/// Appends a key to a path.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

pub(crate) fn place(span: &Span) -> Location {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Location { line: number(span.start.line()), column: number(span.start.col()).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_yaml_and_json() {
        let yaml = "name: x\nmarket:\n  - { name: a, when: 1 > 2 }\n  - name: b\n    match:\n      offset: 1\nrounding:\n  endings: [0.1, 0.2]\n";
        let json = "{\"market\": [{\"name\": \"a\"},\n  {\"match\": {\"offset\": 1}}]}";
        for (document, field, expected) in [
            (yaml, "name", (1, 1)),
            (yaml, "market", (2, 1)),
            (yaml, "market[0]", (3, 5)),
            (yaml, "market[0].when", (3, 16)),
            (yaml, "market[1]", (4, 5)),
            (yaml, "market[1].match.offset", (6, 7)),
            (yaml, "rounding.endings[1]", (8, 18)),
            (json, "market[1].match.offset", (2, 14)),
            // A missing field gets the position of its parent.
            (yaml, "market[1].match.reference", (5, 5)),
            (yaml, "market[1].adjust", (4, 5)),
        ] {
            let mut diagnostic = Diagnostic::bare(field, "is wrong");
            Places::of(document).locate(&mut diagnostic);
            let place = diagnostic.place.unwrap();
            assert_eq!((place.line, place.column), expected, "{field}");
        }
    }

    #[test]
    fn a_part_of_an_expression_is_found_however_it_is_written() {
        for (document, expected) in [
            ("when: aa and bb\n", (1, 14)),
            ("when: 'aa and bb'\n", (1, 15)),
            ("when: \"aa and bb\"\n", (1, 15)),
            ("name: é\nrule: { when: 'aa and bb' }\n", (2, 23)),
            ("when: aa\n  and\n  bb\n", (3, 3)),
            ("when: >-\n  aa and\n  bb\n", (3, 3)),
            ("when: |\n  aa\n  and bb\n", (3, 7)),
            ("{\"when\": \"aa and \\\n  bb\"}\n", (2, 3)),
        ] {
            let field = if document.contains("rule") { "rule.when" } else { "when" };
            let places = Places::of(document);
            let offset = places.texts[field].text.find("bb");
            let mut diagnostic = Diagnostic { offset, ..Diagnostic::bare(field, "is wrong") };
            places.locate(&mut diagnostic);
            let place = diagnostic.place.unwrap();
            assert_eq!((place.line, place.column), expected, "{document}");
        }
        for (document, expected) in
            [("when: 'a == ''toys'' and bb'\n", (1, 26)), ("when: \"a == \\\"toys\\\" and bb\"\n", (1, 26))]
        {
            let places = Places::of(document);
            let offset = places.texts["when"].text.find("bb");
            let mut diagnostic = Diagnostic { offset, ..Diagnostic::bare("when", "is wrong") };
            places.locate(&mut diagnostic);
            assert_eq!(
                diagnostic.place,
                Some(Location { line: expected.0, column: expected.1 }),
                "{document}"
            );
        }
    }

    #[test]
    fn a_broken_document_has_the_places_before_the_break() {
        let mut diagnostic = Diagnostic::bare("name", "is wrong");
        Places::of("name: x\nmarket: [").locate(&mut diagnostic);
        assert_eq!(diagnostic.place, Some(Location { line: 1, column: 1 }));
    }
}
