//! Circles among the modules of a crate: files that import each other, by way of others or not.

use std::collections::BTreeMap;

use super::source::{Source, is_name_char};

/// Each file of a crate with the files that it imports from.
type Imports<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// The ways of the modules below `root` that lead back to where they began, one for each circle that is met.
pub(super) fn circles(sources: &[Source], root: &str) -> Vec<String> {
    let of_crate: BTreeMap<&str, &Source> = sources
        .iter()
        .filter_map(|source| {
            let file = source.path.strip_prefix(root)?.strip_suffix(".rs")?;
            Some((file.strip_suffix("/mod").unwrap_or(file), source))
        })
        .collect();
    let imports: Imports<'_> = of_crate
        .iter()
        .map(|(module, source)| {
            (*module, imported(source, &of_crate).filter(|other| other != module).collect())
        })
        .collect();
    let mut done = Vec::new();
    let mut found = Vec::new();
    for module in imports.keys() {
        walk(module, &imports, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

/// The modules that a file names after `crate::`, outside its tests.
fn imported<'a>(
    source: &'a Source,
    of_crate: &'a BTreeMap<&'a str, &Source>,
) -> impl Iterator<Item = &'a str> {
    let paths = source.find_word("crate::").filter(|offset| !source.is_test(*offset));
    paths.filter_map(move |offset| {
        let path = source.code.get(offset + "crate::".len()..)?;
        let end = path.find(|c| !is_name_char(c) && c != ':').unwrap_or(path.len());
        let mut names = path.get(..end)?.split("::");
        let (first, second) = (names.next()?, names.next().unwrap_or_default());
        let inner = format!("{first}/{second}");
        let module = of_crate.get_key_value(inner.as_str()).or_else(|| of_crate.get_key_value(first))?;
        Some(*module.0)
    })
}

fn walk<'a>(
    module: &'a str,
    imports: &Imports<'a>,
    way: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
    found: &mut Vec<String>,
) {
    if let Some(start) = way.iter().position(|before| *before == module) {
        let circle = way.get(start..).unwrap_or_default().join(" → ");
        found.push(format!("{circle} → {module}: give what both need a file that imports neither"));
        return;
    }
    if done.contains(&module) {
        return;
    }
    way.push(module);
    for next in imports.get(module).into_iter().flatten() {
        walk(next, imports, way, done, found);
    }
    way.pop();
    done.push(module);
}
