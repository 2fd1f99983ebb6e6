//! Finds every field of a policy document that is unknown or of the wrong kind, where a parser stops at the
//! first. The rest of the document is checked as if those fields were absent.

use std::collections::HashSet;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Location, nearest, shorten};
use crate::policy::document::PolicyDraft;
use crate::policy::places::{join, place};

/// A document as written.
#[derive(Debug)]
struct Node {
    place: Location,
    kind: NodeKind,
}

#[derive(Debug)]
enum NodeKind {
    Scalar {
        text: String,
        is_plain: bool,
    },
    Sequence(Vec<Node>),
    /// Each key with its place.
    Mapping(Vec<(String, Location, Node)>),
}

/// Returns the problems of a document that cannot be parsed as a policy, and the policy without the invalid
/// fields. `None` if it is not YAML or has aliases, a few of which can expand to a document of any size.
pub(crate) fn examine(document: &str) -> Option<(Vec<Diagnostic>, Option<PolicyDraft>)> {
    let root = read(document)?;
    let schema = PolicyDraft::json_schema();
    let mut examination = Examination { schema: &schema, problems: Vec::new() };
    let kept = examination.keep("", &root, &schema);
    let draft = kept.and_then(|kept| serde_json::from_value(kept).ok());
    Some((examination.problems, draft))
}

/// Parses the document into a tree.
fn read(document: &str) -> Option<Node> {
    let mut open: Vec<(Node, Option<(String, Location)>)> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(document) {
        let (event, span) = event.ok()?;
        let closed = match event {
            Event::Alias(_) => return None,
            Event::Scalar(text, style, ..) => {
                if let Some((Node { kind: NodeKind::Mapping(_), .. }, key @ None)) = open.last_mut() {
                    *key = Some((text.into_owned(), place(&span)));
                    continue;
                }
                node(
                    &span,
                    NodeKind::Scalar { text: text.into_owned(), is_plain: style == ScalarStyle::Plain },
                )
            }
            Event::SequenceStart(..) => {
                open.push((node(&span, NodeKind::Sequence(Vec::new())), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((node(&span, NodeKind::Mapping(Vec::new())), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop()?.0,
            _ => continue,
        };
        match open.last_mut() {
            None => root = Some(closed),
            Some((Node { kind: NodeKind::Sequence(items), .. }, _)) => items.push(closed),
            Some((Node { kind: NodeKind::Mapping(fields), .. }, key)) => {
                let (key, place) = key.take()?;
                fields.push((key, place, closed));
            }
            Some(_) => return None,
        }
    }
    root
}

fn node(span: &Span, kind: NodeKind) -> Node {
    Node { place: place(span), kind }
}

struct Examination<'s> {
    schema: &'s Value,
    problems: Vec<Diagnostic>,
}

impl<'s> Examination<'s> {
    /// Returns the valid parts of the document at `path`, which should match `schema`.
    fn keep(&mut self, path: &str, node: &Node, schema: &'s Value) -> Option<Value> {
        let (schema, may_be_absent) = self.resolve(schema);
        if may_be_absent && node.is_null() {
            return Some(Value::Null);
        }
        if let Some(names) = names(schema) {
            return self.keep_name(path, node, &names);
        }
        let kinds = kinds(schema);
        match (&node.kind, kinds.first().copied()) {
            (NodeKind::Mapping(fields), Some("object")) => self.keep_fields(path, node.place, fields, schema),
            (NodeKind::Sequence(items), Some("array")) => {
                let of_items = schema.get("items")?;
                let items = items.iter().enumerate();
                let kept: Vec<Option<Value>> = items
                    .map(|(index, item)| self.keep(&format!("{path}[{index}]"), item, of_items))
                    .collect();
                // Without one of them the indices of the others would be wrong.
                kept.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
            }
            (NodeKind::Scalar { text, .. }, Some("boolean")) => match text.to_lowercase().as_str() {
                "true" | "yes" | "on" | "y" => Some(Value::Bool(true)),
                "false" | "no" | "off" | "n" => Some(Value::Bool(false)),
                _ => self.refuse(path, node, "true or false"),
            },
            (NodeKind::Scalar { text, .. }, Some("string")) if !node.is_null() => {
                Some(Value::String(text.clone()))
            }
            (_, kind) => self.refuse(path, node, in_words(kind)),
        }
    }

    fn keep_fields(
        &mut self,
        path: &str,
        at: Location,
        fields: &[(String, Location, Node)],
        schema: &'s Value,
    ) -> Option<Value> {
        let mut kept = Map::new();
        let mut seen = HashSet::new();
        for (key, place, value) in fields {
            let field = join(path, key);
            let of_field = schema.get("properties").and_then(|known| known.get(key));
            let of_any = schema.get("additionalProperties").filter(|any| any.is_object());
            if !seen.insert(key) {
                self.problem(&field, *place, "is written twice".to_owned(), None);
            } else if let Some(of_field) = of_field.or(of_any) {
                kept.extend(self.keep(&field, value, of_field).map(|value| (key.clone(), value)));
            } else {
                self.unknown(&field, key, *place, schema);
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            // A missing name is reported by the check.
            if !seen.iter().any(|key| *key == name) && name != "name" {
                self.problem(&join(path, name), at, "is missing".to_owned(), None);
            }
        }
        // Without a required field, the rest is unusable.
        let mut needed = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let is_complete =
            needed.all(|name| name == "name" || name.as_str().is_some_and(|name| kept.contains_key(name)));
        is_complete.then_some(Value::Object(kept))
    }

    fn keep_name(&mut self, path: &str, node: &Node, names: &[&str]) -> Option<Value> {
        match &node.kind {
            NodeKind::Scalar { text, .. } if names.contains(&text.as_str()) => {
                Some(Value::String(text.clone()))
            }
            _ => self.refuse(path, node, &names.join(", ")),
        }
    }

    fn unknown(&mut self, field: &str, key: &str, place: Location, schema: &Value) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let allowed = nearest(key, &known).map_or_else(|| known.join(", "), str::to_owned);
        self.problem(field, place, "is not known here".to_owned(), Some(allowed));
    }

    fn refuse(&mut self, path: &str, node: &Node, allowed: &str) -> Option<Value> {
        let problem = match &node.kind {
            _ if node.is_null() => "is empty".to_owned(),
            NodeKind::Scalar { text, .. } => format!("\"{}\" is not allowed", shorten(text)),
            NodeKind::Sequence(_) => "is a list".to_owned(),
            NodeKind::Mapping(_) => "has fields of its own".to_owned(),
        };
        let path = if path.is_empty() { "policy" } else { path };
        self.problem(path, node.place, problem, Some(allowed.to_owned()));
        None
    }

    fn problem(&mut self, field: &str, place: Location, problem: String, allowed: Option<String>) {
        self.problems.push(Diagnostic { allowed, place: Some(place), ..Diagnostic::bare(field, problem) });
    }

    /// Resolves references in a schema; also returns whether null is allowed.
    fn resolve(&self, mut schema: &'s Value) -> (&'s Value, bool) {
        let mut may_be_absent = false;
        loop {
            if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
                let target = target.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
                let Some(target) = target else { return (schema, may_be_absent) };
                schema = target;
            } else if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
                let is_null = |choice: &Value| choice.get("type").is_some_and(|kind| kind == "null");
                may_be_absent |= choices.iter().any(is_null);
                let Some(choice) = choices.iter().find(|choice| !is_null(choice)) else {
                    return (schema, may_be_absent);
                };
                schema = choice;
            } else {
                return (schema, may_be_absent || kinds(schema).contains(&"null"));
            }
        }
    }
}

impl Node {
    fn is_null(&self) -> bool {
        let NodeKind::Scalar { text, is_plain: true } = &self.kind else { return false };
        matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

fn kinds(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Returns the allowed names of an enumeration.
fn names(schema: &Value) -> Option<Vec<&str>> {
    let listed = schema.get("enum").and_then(Value::as_array);
    if let Some(listed) = listed {
        return Some(listed.iter().filter_map(Value::as_str).collect());
    }
    let choices = schema.get("oneOf").and_then(Value::as_array)?;
    let named = choices.iter().flat_map(|choice| {
        let one = choice.get("const").into_iter();
        one.chain(choice.get("enum").and_then(Value::as_array).into_iter().flatten())
    });
    Some(named.filter_map(Value::as_str).collect())
}

fn in_words(kind: Option<&str>) -> &'static str {
    match kind {
        Some("object") => "fields of its own",
        Some("array") => "a list",
        _ => "a text or a number",
    }
}
