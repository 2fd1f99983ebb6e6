//! The documents: each link between them leads to a file, and to a heading, that exists.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

/// What git ignores, and texts that tests put together.
const SKIPPED: &[&str] =
    &[".data", ".git", "__pycache__", "complete-journey", "node_modules", "target", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The paths of the Markdown files below a directory.
fn documents(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(documents(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(found)
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

#[test]
fn links_between_documents_lead_somewhere() -> io::Result<()> {
    let documents = documents(&root().canonicalize()?)?;
    assert!(documents.len() > 20, "{documents:?}");
    let mut broken = Vec::new();
    for document in documents {
        broken.extend(broken_links(&document, &fs::read_to_string(&document)?)?);
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
