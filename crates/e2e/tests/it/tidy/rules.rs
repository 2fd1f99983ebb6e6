//! The rules: each looks at one file and returns its complaints, `file:line: what: why or what to do`.

use super::source::{Source, is_name_char};
use super::{
    Ban, DEPENDANTS, EMPTY_NAMES, Found, MAX_COMMENT_COLUMNS, MAX_FILE_LINES, MAX_FUNCTION_LINES, ROWS,
};

pub(super) fn complain_of_length(source: &Source) -> Vec<String> {
    let path = &source.path;
    let line_count = source.text.lines().count();
    let long_file = (line_count > MAX_FILE_LINES).then(|| {
        format!("{path}:1: {line_count} lines, allowed {MAX_FILE_LINES}: split it by what it speaks of")
    });
    let functions = source.functions().into_iter();
    let long_functions =
        functions.filter(|function| function.line_count > MAX_FUNCTION_LINES).map(|function| {
            format!(
                "{path}:{}: `{}` has {} lines, allowed {MAX_FUNCTION_LINES}: give its parts names",
                function.line, function.name, function.line_count
            )
        });
    long_file.into_iter().chain(long_functions).collect()
}

/// Rows of tables and addresses cannot be broken.
pub(super) fn complain_of_wide_comments(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let wide = lines.filter(|(_, line)| {
        let text =
            line.trim_start().strip_prefix("//").map(|text| text.trim_start_matches(['/', '!']).trim());
        text.is_some_and(|text| text.contains(' ') && !text.starts_with('|') && !text.starts_with('['))
            && line.chars().count() > MAX_COMMENT_COLUMNS
    });
    let complain = |(index, line): (usize, &str)| {
        let (path, columns) = (&source.path, line.chars().count());
        format!(
            "{path}:{}: a comment of {columns} columns, allowed {MAX_COMMENT_COLUMNS}: wrap it",
            index + 1
        )
    };
    wide.map(complain).collect()
}

pub(super) fn complain_of_banned(ban: &Ban, source: &Source) -> Vec<String> {
    let path = &source.path;
    if ban.except.iter().any(|place| is_at(path, place)) || !path.starts_with(ban.inside) {
        return Vec::new();
    }
    let complain = |offset: usize, what: &str| {
        (!source.is_test(offset))
            .then(|| format!("{path}:{}: `{what}` here: {}", source.line_of(offset), ban.why))
    };
    match ban.found {
        Found::Words(words) => words
            .iter()
            .flat_map(|word| source.find_word(word).filter_map(|offset| complain(offset, word)))
            .collect(),
        Found::Literals(beginnings) => source
            .literals
            .iter()
            .filter(|literal| beginnings.iter().any(|beginning| literal.text.starts_with(beginning)))
            .filter_map(|literal| complain(literal.offset, &literal.text))
            .collect(),
    }
}

/// Whether a path begins as the place does or, after a `*`, ends so.
fn is_at(path: &str, place: &str) -> bool {
    match place.strip_prefix('*') {
        Some(end) => path.ends_with(end),
        None => path.starts_with(place),
    }
}

/// An exception of a file that has gone would be one for the next file of that name.
pub(super) fn complain_of_idle_exceptions(ban: &Ban, paths: &[&str]) -> Vec<String> {
    let idle = ban.except.iter().filter(|place| !paths.iter().any(|path| is_at(path, place)));
    idle.map(|place| format!("tidy.rs: no file is at `{place}`, which is excepted: take it out")).collect()
}

pub(super) fn complain_of_arrows(source: &Source) -> Vec<String> {
    let of_crate = |(root, rows)| Some((source.path.strip_prefix(root)?, rows));
    let Some((inside, rows)) = ROWS.into_iter().find_map(of_crate) else {
        return Vec::new();
    };
    let row_of = |module: &str| rows.iter().position(|row| row.contains(&module));
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    if module == "lib" {
        return Vec::new();
    }
    let Some(row) = row_of(module) else {
        return vec![format!("{}:1: module `{module}` has no row in tidy.rs: give it one", source.path)];
    };
    let complain = |offset: usize, used: &str| {
        let line = source.line_of(offset);
        format!(
            "{}:{line}: `{module}` uses `{used}`, which has no earlier row in tidy.rs: turn the arrow round or hand \
             the value in",
            source.path
        )
    };
    let is_against_the_arrows = |used: &str| used != module && row_of(used).is_none_or(|other| other >= row);
    let mut complaints = Vec::new();
    for offset in source.find_word("crate::").filter(|offset| !source.is_test(*offset)) {
        let used = first_names(source.code.get(offset..).unwrap_or_default());
        let against = used.into_iter().filter(|used| is_against_the_arrows(used));
        complaints.extend(against.map(|used| complain(offset, used)));
    }
    complaints.extend(complain_of_hidden_arrows(source, inside));
    complaints
}

/// `super::` that leaves the module would be an arrow that the rule above does not see.
fn complain_of_hidden_arrows(source: &Source, inside: &str) -> Option<String> {
    let depth = inside.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let leaving = "super::".repeat(depth);
    let found = source.find_word(&leaving).find(|offset| !source.is_test(*offset))?;
    Some(format!("{}:{}: write `crate::` for `{leaving}`", source.path, source.line_of(found)))
}

/// Of `crate::a::b` that is `a`, of `crate::{a, b::{c, d}}` it is `a` and `b`.
fn first_names(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("crate::");
    let parts = match path.strip_prefix('{') {
        Some(list) => list_parts(list),
        None => vec![path],
    };
    let names = parts.into_iter().map(leading_name);
    names.filter(|name| !name.is_empty()).collect()
}

fn leading_name(text: &str) -> &str {
    text.trim_start().split(|c| !is_name_char(c)).next().unwrap_or_default()
}

/// What stands between the commas of a list in brackets, whose opening bracket is already read.
fn list_parts(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut begin = 0;
    let mut parts = Vec::new();
    for (index, c) in list.char_indices() {
        let is_end = depth == 0 && c == '}';
        if is_end || depth == 0 && c == ',' {
            parts.extend(list.get(begin..index));
            begin = index + 1;
        }
        match c {
            _ if is_end => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    parts
}

pub(super) fn complain_of_names(source: &Source) -> Vec<String> {
    let in_path = source.path.split('/').map(|part| (1, part.trim_end_matches(".rs")));
    let declared = source.find_word("mod").map(|offset| {
        let name = leading_name(source.code.get(offset + "mod".len()..).unwrap_or_default());
        (source.line_of(offset), name)
    });
    in_path
        .chain(declared)
        .filter(|(_, name)| EMPTY_NAMES.contains(name))
        .map(|(line, name)| {
            let path = &source.path;
            format!("{path}:{line}: `{name}` says nothing about what is inside: name what it is for")
        })
        .collect()
}

pub(super) fn complain_of_missing_document(source: &Source) -> Vec<String> {
    let opens_something = source.path.ends_with("/lib.rs") || source.path.ends_with("/mod.rs");
    if !opens_something || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!(
        "{}:1: begin with `//!` and say what is here, what is not, and where to go next",
        source.path
    )]
}

/// Reads as much of TOML as these files use: `[…dependencies]`, then one `name = …` or `name.workspace = …` a
/// line.
pub(super) fn complain_of_dependencies(path: &str, manifest: &str) -> Vec<String> {
    let dependant = path.split('/').nth(1).unwrap_or_default();
    let mut in_dependencies = false;
    let mut complaints = Vec::new();
    for (index, line) in manifest.lines().map(str::trim).enumerate() {
        let mut name = leading_part(line);
        if let Some(header) = line.strip_prefix('[') {
            let (section, table) = header.split_once("dependencies").unwrap_or(("no", ""));
            in_dependencies = section != "no" && table.starts_with(']');
            name = table.trim_start_matches('.').split(']').next().unwrap_or_default();
        } else if !in_dependencies {
            continue;
        }
        let allowed = DEPENDANTS.iter().find(|(package, _)| *package == name);
        if let Some((_, dependants)) = allowed.filter(|(_, dependants)| !dependants.contains(&dependant)) {
            let line = index + 1;
            complaints.push(format!(
                "{path}:{line}: `{dependant}` depends on `{name}`, which only {dependants:?} may: go through one of those"
            ));
        }
    }
    complaints
}

/// What no manifest names of those that the workspace's lists, one a line.
pub(super) fn complain_of_unused_dependencies(workspace: &str, manifests: &[&str]) -> Vec<String> {
    let name_of = |line: &str| leading_part(line).to_owned();
    let used: Vec<String> = manifests.iter().flat_map(|text| text.lines()).map(name_of).collect();
    let listed = workspace.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let listed = listed.take_while(|line| !line.starts_with('[')).map(leading_part);
    let unused = listed.filter(|name| !name.is_empty() && !used.iter().any(|used| used == name));
    unused.map(|name| format!("Cargo.toml: no crate depends on `{name}`: take it out")).collect()
}

/// Of `name = …` and `name.workspace = …` the name.
fn leading_part(line: &str) -> &str {
    line.split(['.', '=', ' ', '#', '[']).next().unwrap_or_default()
}

/// A path below a home directory is right for one person on one machine.
pub(super) fn complain_of_home_directories(path: &str, text: &str) -> Vec<String> {
    // In two parts, or this file would complain of itself.
    let places = [["/ho", "me/"].concat(), ["/Us", "ers/"].concat(), ["/ro", "ot/"].concat()];
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| places.iter().any(|place| line.contains(place)))
        .map(|(index, _)| format!("{path}:{}: a home directory: name the place from the root", index + 1))
        .collect()
}
