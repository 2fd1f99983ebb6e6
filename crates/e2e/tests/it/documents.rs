//! The documents: links between them lead to files and headings that exist, and the tests that they name
//! exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use crate::tidy::{read_files, root};

/// The Markdown files of the repository, without the texts that tests put together.
fn documents() -> io::Result<Vec<(PathBuf, String)>> {
    let files = read_files(&root())?.into_iter();
    let documents = files.filter(|(path, _)| path.ends_with(".md") && !path.contains("/tests/"));
    let root = root().canonicalize()?;
    Ok(documents.map(|(path, text)| (root.join(path), text)).collect())
}

/// The lines that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The targets of the links in a text, those of other hosts left out.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1));
    let targets = targets.filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchor that a heading has on a rendered page.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).any(|heading| heading == wanted)
}

/// The path without `..`, so that a link that leaves the repository is missing and not found by chance.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

fn broken_links(document: &Path, text: &str) -> io::Result<Vec<String>> {
    let mut broken = Vec::new();
    for link in links(text) {
        let (path, heading) = link.split_once('#').unwrap_or((link, ""));
        let target = match path {
            "" => document.to_owned(),
            path => normal(&document.parent().unwrap_or(document).join(path)),
        };
        let leads_there =
            target.exists() && (heading.is_empty() || has_heading(&fs::read_to_string(&target)?, heading));
        if !leads_there {
            broken.push(format!("{}: {link}", document.display()));
        }
    }
    Ok(broken)
}

/// The tests and modules that a text names: `cargo test … FILTER`, and lines of its output.
fn named_tests(text: &str) -> Vec<&str> {
    let commands = text.match_indices("cargo test ").filter_map(|(at, _)| {
        let command = text.get(at..)?.lines().next()?.split('`').next()?;
        let words: Vec<&str> = command.split_whitespace().skip(2).collect();
        let is_filter = |(index, word): &(usize, &&str)| {
            let before = index.checked_sub(1).and_then(|before| words.get(before));
            !word.starts_with('-') && !before.is_some_and(|before| ["-p", "--test"].contains(before))
        };
        words.iter().enumerate().find(is_filter).map(|(_, word)| word.trim_end_matches("::"))
    });
    let passed = text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    commands.chain(passed.filter_map(|path| path.rsplit("::").next())).collect()
}

/// The names of functions and modules in the sources.
fn names_in_sources() -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for (path, text) in read_files(&root().join("crates"))? {
        if path.ends_with(".rs") {
            for rest in text.split("fn ").chain(text.split("mod ")).skip(1) {
                let is_outside = |c: char| !c.is_alphanumeric() && c != '_';
                names.extend(rest.split(is_outside).next().map(str::to_owned));
            }
        }
    }
    Ok(names)
}

#[test]
fn tests_that_documents_name_exist() -> io::Result<()> {
    let names = names_in_sources()?;
    let (mut found, mut missing) = (0, Vec::new());
    for (document, text) in documents()? {
        for named in named_tests(&text) {
            found += 1;
            if !names.iter().any(|name| name.contains(named)) {
                missing.push(format!("{}: {named}", document.display()));
            }
        }
    }
    assert!(found > 10 && missing.is_empty(), "{found} found\n{}\n", missing.join("\n"));
    Ok(())
}

#[test]
fn a_named_test_is_read_from_a_command_and_from_its_output() {
    let text = "`cargo test -p pricing-e2e --test it jobs::` and `cargo test -p pricing-core`\n\
                $ cargo test -p pricing-core lease\ntest lease::tests::one_holds_it ... ok";
    assert_eq!(named_tests(text), ["jobs", "lease", "one_holds_it"]);
}

#[test]
fn links_between_documents_lead_somewhere() -> io::Result<()> {
    let documents = documents()?;
    assert!(documents.len() > 20, "{documents:?}");
    let mut broken = Vec::new();
    for (document, text) in documents {
        broken.extend(broken_links(&document, &text)?);
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
    Ok(())
}

#[test]
fn a_broken_link_is_found() -> io::Result<()> {
    let document = root().canonicalize()?.join("README.md");
    let text = "[a](SECURITY.md) [b](#start) [c](nowhere.md)\n```\n[d](nowhere)\n```\n\
                [e](SECURITY.md#nothing) [f](https://example.com/nowhere)";
    let broken = broken_links(&document, text)?;
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(broken.iter().all(|link| link.contains("README.md: ")), "{broken:?}");
    Ok(())
}
