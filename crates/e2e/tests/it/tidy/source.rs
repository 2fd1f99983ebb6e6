//! A Rust file as the rules see it: code without comments, text literals apart, tests marked.
//!
//! This is a scanner, not a parser: it knows comments, literals and brackets, and so never takes a word in a
//! comment or in a text for code. That is all the rules need.

use std::iter;
use std::ops::Range;

/// A Rust file.
pub(super) struct Source {
    /// From the repository's root, with `/`.
    pub(super) path: String,
    /// As it is written.
    pub(super) text: String,
    /// The same lines without comments and without what stands in literals.
    pub(super) code: String,
    /// The text literals.
    pub(super) literals: Vec<Passage>,
    /// The comments, one for each line that has one.
    pub(super) comments: Vec<Passage>,
    /// The parts of `code` that are compiled for tests only.
    test_parts: Vec<Range<usize>>,
}

/// A text literal or a comment.
pub(super) struct Passage {
    /// Where it begins in the file's `code`.
    pub(super) offset: usize,
    /// What stands between its quotes, escapes as written; all of a comment.
    pub(super) text: String,
}

/// A function.
pub(super) struct Function {
    pub(super) name: String,
    /// The line of its `fn`, from 1.
    pub(super) line: usize,
    /// From its `fn` to its closing bracket.
    pub(super) line_count: usize,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut scanner =
            Scanner { rest: text, code: String::new(), literals: Vec::new(), comments: Vec::new() };
        scanner.run();
        let Scanner { code, literals, comments, .. } = scanner;
        let test_parts = if is_test_file(path) {
            iter::once(0..code.len() + 1).collect()
        } else {
            code.match_indices("#[cfg(test)]")
                .map(|(start, attribute)| start..item_end(&code, start + attribute.len()))
                .collect()
        };
        Self { path: path.to_owned(), text: text.to_owned(), code, literals, comments, test_parts }
    }

    /// Whether the place in `code` is compiled for tests only.
    pub(super) fn is_test(&self, offset: usize) -> bool {
        self.test_parts.iter().any(|part| part.contains(&offset))
    }

    /// The line of a place in `code`, from 1.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        before(&self.code, offset).matches('\n').count() + 1
    }

    /// Where `word` stands in the code, by itself and not as part of a longer name.
    pub(super) fn find_word(&self, word: &str) -> impl Iterator<Item = usize> {
        let begins_name = word.starts_with(is_name_char);
        let ends_name = word.ends_with(is_name_char);
        self.code.match_indices(word).map(|(start, _)| start).filter(move |start| {
            let joined_before = begins_name && before(&self.code, *start).ends_with(is_name_char);
            let joined_after = ends_name && from(&self.code, start + word.len()).starts_with(is_name_char);
            !joined_before && !joined_after
        })
    }

    pub(super) fn functions(&self) -> Vec<Function> {
        let function_at = |start: usize| {
            let name = from(&self.code, start + "fn".len()).trim_start();
            let name = name.chars().take_while(|c| is_name_char(*c)).collect();
            let line = self.line_of(start);
            Function { name, line, line_count: self.line_of(item_end(&self.code, start)) - line + 1 }
        };
        // `fn(A) -> B` is a type and has no name.
        self.find_word("fn").map(function_at).filter(|function| !function.name.is_empty()).collect()
    }
}

fn before(text: &str, offset: usize) -> &str {
    text.get(..offset).unwrap_or_default()
}

fn from(text: &str, offset: usize) -> &str {
    text.get(offset..).unwrap_or_default()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("crates/e2e/")
        || path.contains("/tests/")
        || path.contains("/benches/")
        || path.ends_with("_tests.rs")
        || path.ends_with("/tests.rs")
}

pub(super) fn is_name_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Where the item that begins at `start` ends: after its `;` or its block.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (index, c) in from(code, start).char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return start + index + 1;
        }
    }
    code.len()
}

/// Reads a file once, from its beginning to its end.
struct Scanner<'a> {
    rest: &'a str,
    code: String,
    literals: Vec<Passage>,
    comments: Vec<Passage>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        while let Some(next) = self.rest.chars().next() {
            if self.rest.starts_with("//") {
                self.take_comment(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.take_comment(block_comment_length(self.rest));
            } else if let Some((opening, closing)) = self.raw_text_quotes() {
                self.take_literal(opening, from(self.rest, opening).find(&closing), closing.len());
            } else if next == '"' {
                self.take_literal(1, unescaped(from(self.rest, 1), '"'), 1);
            } else if let Some(length) = character_length(self.rest) {
                self.skip(length);
            } else {
                self.code.push(next);
                self.advance(next.len_utf8());
            }
        }
    }

    fn advance(&mut self, length: usize) -> &str {
        let (passed, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        passed
    }

    /// Leaves nothing in the code but the line ends, so that lines keep their numbers.
    fn skip(&mut self, length: usize) {
        let line_ends = self.advance(length).matches('\n').count();
        self.code.push_str(&"\n".repeat(line_ends));
    }

    fn take_comment(&mut self, length: usize) {
        let text = before(self.rest, length).to_owned();
        self.comments.push(Passage { offset: self.code.len(), text });
        self.skip(length);
    }

    /// Leaves empty quotes in the code.
    fn take_literal(&mut self, opening: usize, length: Option<usize>, closing: usize) {
        let offset = self.code.len();
        self.code.push_str("\"\"");
        self.advance(opening);
        let length = length.unwrap_or(self.rest.len());
        let text = before(self.rest, length).to_owned();
        self.literals.push(Passage { offset, text });
        self.skip(length + closing);
    }

    /// The length of the opening and the text of the closing of a raw literal that begins here.
    fn raw_text_quotes(&self) -> Option<(usize, String)> {
        if self.code.ends_with(is_name_char) {
            return None;
        }
        let after_prefix = self.rest.trim_start_matches(['b', 'c']).strip_prefix('r')?;
        let after_hashes = after_prefix.trim_start_matches('#');
        let after_quote = after_hashes.strip_prefix('"')?;
        let closing = format!("\"{}", "#".repeat(after_prefix.len() - after_hashes.len()));
        Some((self.rest.len() - after_quote.len(), closing))
    }
}

/// Where `quote` stands without a backslash that counts before it.
fn unescaped(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, c)| {
        let found = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(index)
    })
}

/// The length of the character literal that begins here; a lifetime is none.
fn character_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        return unescaped(inside, '\'').map(|length| length + 2);
    }
    let is_closed = inside.chars().nth(1) == Some('\'');
    is_closed.then(|| first.len_utf8() + 2)
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut length = 0;
    while let Some(rest) = text.get(length..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            length += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            length += 2;
        } else {
            length += rest.chars().next().map_or(0, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    length
}

#[test]
fn comments_and_literals_are_no_code() {
    for (text, code) in [
        ("a // b\nc", "a \nc"),
        ("a /* b /* c */ \n d */ e", "a \n e"),
        ("f(\"x // \\\" y\", z)", "f(\"\", z)"),
        ("f(r#\"x \" y\"#, br\"z\")", "f(\"\", \"\")"),
        ("f(b\"x\", \"\")", "f(b\"\", \"\")"),
        ("x('\"', '\\'', '{', b'/')", "x(, , , b)"),
        ("impl<'a> X<'a> for &'a Y {}", "impl<'a> X<'a> for &'a Y {}"),
        ("let r#type = bar; // x", "let r#type = bar; "),
        ("\"a\nb\"\n\nc", "\"\"\n\n\nc"),
    ] {
        assert_eq!(Source::new("x.rs", text).code, code, "{text}");
    }
}

#[test]
fn literals_keep_their_text_and_line() {
    let source = Source::new("x.rs", "a(\n\"b \\\" c\",\nr#\"d\"e\"#)");
    let found: Vec<_> = source
        .literals
        .iter()
        .map(|literal| (source.line_of(literal.offset), literal.text.as_str()))
        .collect();
    assert_eq!(found, [(2, "b \\\" c"), (3, "d\"e")]);
}

#[test]
fn test_code_ends_where_its_item_ends() {
    let source =
        Source::new("crates/core/src/x.rs", "a;\n#[cfg(test)]\n#[path = \"y\"]\nmod tests { b; { c } }\nd;");
    let is_test = |word| source.find_word(word).map(|offset| source.is_test(offset)).collect::<Vec<_>>();
    assert_eq!([is_test("a"), is_test("b"), is_test("c"), is_test("d")], [[false], [true], [true], [false]]);
    assert!(Source::new("crates/core/src/x_tests.rs", "a;").is_test(0));
}

#[test]
fn functions_are_measured_from_fn_to_bracket() {
    let source = Source::new(
        "x.rs",
        "trait T {\n    fn none(x: [u8; 4]);\n    /// fn doc()\n    async fn two(f: fn(u8)) -> u8 {\n        '}'\n    }\n}\n",
    );
    let found: Vec<_> = source
        .functions()
        .into_iter()
        .map(|function| (function.name, function.line, function.line_count))
        .collect();
    assert_eq!(found, [("none".to_owned(), 2, 1), ("two".to_owned(), 4, 3)]);
}
