//! Where in its document a field of a policy stands, for editors and error messages.

use std::collections::HashMap;

use granit_parser::{Event, Parser, Span};

use super::diagnostic::{Diagnostic, Place};

/// The places of all fields of a YAML or JSON document, by their paths: `market[2].when`.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<String, Place>);

/// A mapping or a sequence that was begun.
enum Open {
    /// With the key whose value comes next.
    Mapping { path: String, key: Option<String> },
    /// With the number of items that have come.
    Sequence { path: String, items: usize },
}

impl Places {
    /// Finds them; those after an error in the document are left out.
    pub(super) fn of(document: &str) -> Self {
        let mut places = Self::default();
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(document) {
            let Ok((event, span)) = event else { break };
            match event {
                Event::Scalar(text, ..) => {
                    if let Some(Open::Mapping { path, key: key @ None }) = open.last_mut() {
                        places.0.insert(join(path, &text), place(&span));
                        *key = Some(text.into_owned());
                    } else {
                        places.take(&mut open, &span);
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

    /// Says where the field of the diagnostic stands, or if it is missing, where what should have it does.
    pub(super) fn locate(&self, diagnostic: &mut Diagnostic) {
        let mut path = diagnostic.field.as_str();
        while diagnostic.place.is_none() && !path.is_empty() {
            diagnostic.place = self.0.get(path).copied();
            path = path.rfind(['.', '[']).and_then(|end| path.get(..end)).unwrap_or_default();
        }
    }

    /// The path of the value that begins here; notes the place of an item.
    fn take(&mut self, open: &mut [Open], span: &Span) -> String {
        match open.last_mut() {
            None => String::new(),
            Some(Open::Mapping { path, key }) => join(path, &key.take().unwrap_or_default()),
            Some(Open::Sequence { path, items }) => {
                let item = format!("{path}[{items}]");
                *items += 1;
                self.0.insert(item.clone(), place(span));
                item
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn place(span: &Span) -> Place {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: number(span.start.line()), column: number(span.start.col()).saturating_add(1) }
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
            // What is missing is looked for where it should be.
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
    fn a_broken_document_has_the_places_before_the_break() {
        let mut diagnostic = Diagnostic::bare("name", "is wrong");
        Places::of("name: x\nmarket: [").locate(&mut diagnostic);
        assert_eq!(diagnostic.place, Some(Place { line: 1, column: 1 }));
    }
}
