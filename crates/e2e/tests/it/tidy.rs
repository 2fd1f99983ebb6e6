//! The house rules that a compiler does not know. Each is a row of a table, with its reason; each has a test
//! that shows it bad code and expects a complaint, since a rule that cannot fail holds nothing.
//!
//! Code that is compiled for tests only may use any word; the lengths, names and arrows between crates hold
//! for it too.

mod can_fail;
mod circles;
mod rules;
mod source;
mod words;

use std::path::{Path, PathBuf};
use std::{fs, io};

use circles::circles;
use rules::{
    complain_of_arrows, complain_of_banned, complain_of_dependencies, complain_of_home_directories,
    complain_of_idle_exceptions, complain_of_length, complain_of_missing_document, complain_of_names,
    complain_of_unused_dependencies, complain_of_wide_comments,
};
use source::Source;
use words::complain_of_words;

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COMMENT_COLUMNS: usize = 110;

/// Who may depend on whom: a package, and the crates that may name it in their Cargo.toml.
const DEPENDANTS: &[(&str, &[&str])] = &[
    // Services never call each other, so they share nothing but the core.
    ("pricing-domain", &["core", "wire", "api", "worker", "listener", "cli", "e2e"]),
    ("pricing-core", &["api", "worker", "listener", "cli", "e2e"]),
    // Requests and answers: the API writes what the command line reads, and the other way round.
    ("pricing-wire", &["api", "cli"]),
    ("pricing-api", &["cli", "e2e"]),
    ("pricing-worker", &["cli", "e2e"]),
    ("pricing-listener", &["cli", "e2e"]),
    ("pricing-cli", &["e2e"]),
    ("pricing-e2e", &[]),
    ("xtask", &[]),
    // What is outside stays at one place, where it can be replaced.
    ("axum", &["api", "core", "e2e"]),
    ("sqlx", &["core", "e2e"]),
    ("redis", &["core", "e2e"]),
    ("clap", &["cli"]),
];

/// The parts of the domain. One uses only what stands in an earlier row.
const DOMAIN_ROWS: &[&[&str]] = &[&["diagnostic"], &["facts"], &["expression"], &["policy"], &["pricing"]];

/// The modules of the core. A module uses only what stands in an earlier row.
const CORE_ROWS: &[&[&str]] = &[
    &["catalogue"],
    &["backoff", "keys", "quote_lock", "redis_address", "shutdown", "tls", "tz_database"],
    &["config"],
    &["telemetry"],
    &["redis"],
    &["audit"],
    &["lease", "store", "events", "jobs", "notifications", "tz_versions", "processes"],
    &["access", "clock"],
    &["cache", "policy_snapshot"],
    &["health", "service"],
    &["engine"],
];

/// The nouns of requests and answers. One uses only what stands in an earlier row.
const WIRE_ROWS: &[&[&str]] = &[
    &["amount"],
    &["held_price", "problem", "reduction"],
    &[
        "audit",
        "explanation",
        "failed_job",
        "held_move",
        "key",
        "history",
        "policy",
        "price_change",
        "price_difference",
        "recalculation",
        "simulation",
    ],
    &["import"],
];

/// Where the rows hold.
const ROWS: [(&str, &[&[&str]]); 3] =
    [("crates/domain/src/", DOMAIN_ROWS), ("crates/core/src/", CORE_ROWS), ("crates/wire/src/", WIRE_ROWS)];

/// Packages that a user of the domain has to build, itself not counted.
const MAX_DOMAIN_PACKAGES: usize = 80;

/// Names that say nothing about what is inside, and so draw in everything.
const EMPTY_NAMES: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "models", "services", "util", "utils"];

/// What may stand only at some places.
struct Ban {
    found: Found,
    /// Where the rule holds: a path from the root begins so.
    inside: &'static str,
    /// Where it does not: a path begins so or, after a `*`, ends so.
    except: &'static [&'static str],
    why: &'static str,
}

enum Found {
    /// These words, in code.
    Words(&'static [&'static str]),
    /// Text literals that begin so.
    Literals(&'static [&'static str]),
}

use Found::{Literals, Words};

const BANS: &[Ban] = &[
    Ban {
        // Other crates that do are no dependencies of it.
        found: Words(&["async", "std::fs", "std::env", "std::net", "std::thread"]),
        inside: "crates/domain/src/",
        except: &[],
        why: "the domain does no input or output, so that a price depends on nothing but its arguments",
    },
    Ban {
        found: Words(&["async", "std::fs", "std::env", "std::net", "std::thread", "SystemTime", "Utc::now"]),
        inside: "crates/wire/src/",
        except: &[],
        why: "requests and answers are types; the API and the command line work with them",
    },
    Ban {
        found: Words(&[
            "opentelemetry",
            "opentelemetry_sdk::",
            "opentelemetry_otlp::",
            "tracing_opentelemetry::",
        ]),
        inside: "crates/",
        except: &["crates/core/src/telemetry/", "crates/e2e/"],
        why: "the inventory of spans is one file, and no other module needs the tracing library",
    },
    Ban {
        found: Words(&["SystemTime", "Instant", "Utc::now", "rand"]),
        inside: "crates/domain/src/",
        except: &[],
        why: "time and chance are arguments, so that the same facts give the same price again",
    },
    Ban {
        found: Words(&["f32", "f64"]),
        inside: "crates/domain/src/",
        except: &[],
        why: "money is Decimal; binary floating point cannot hold 0.10",
    },
    Ban {
        found: Words(&["axum::"]),
        inside: "crates/core/src/",
        except: &["crates/core/src/health/"],
        why: "HTTP is pricing-api's; the core has only the port for health and metrics",
    },
    Ban {
        found: Words(&["sqlx::"]),
        inside: "crates/core/src/",
        except: &["crates/core/src/store/"],
        why: "only the store speaks SQL; call it",
    },
    Ban {
        found: Words(&["Utc::now", "SystemTime::now"]),
        inside: "crates/core/src/",
        except: &[
            "crates/core/src/cache/",
            "crates/core/src/store/",
            "crates/core/src/events/",
            "crates/core/src/health/",
            "crates/core/src/jobs/",
            "crates/core/src/lease/",
            "crates/core/src/notifications/",
            "crates/core/src/policy_snapshot.rs",
            "crates/core/src/clock.rs",
        ],
        why: "read the clock where the work begins and hand `now` down",
    },
    Ban {
        found: Words(&["env::var", "env::var_os", "env::vars", "env::vars_os"]),
        inside: "crates/",
        except: &["*/config.rs", "crates/cli/src/", "crates/xtask/src/"],
        why: "the environment is read once, in a config.rs, and checked there; hand the value down",
    },
    Ban {
        found: Literals(&["PRICING_"]),
        inside: "crates/",
        except: &["*/config.rs", "crates/cli/src/", "crates/xtask/src/"],
        why: "names of variables are spelled in config.rs only, where its table lists them",
    },
    Ban {
        found: Literals(&["pricing_"]),
        inside: "crates/",
        // A key begins so, too.
        except: &["crates/core/src/telemetry/inventory.rs", "crates/core/src/access/key.rs"],
        why: "names of metrics are spelled in telemetry/inventory.rs only",
    },
    Ban {
        found: Literals(&["pricing:v1", "market_events", "price_changes"]),
        inside: "crates/",
        except: &["crates/core/src/keys.rs"],
        why: "Redis keys and channels are spelled in keys.rs only, which is the schema",
    },
];

// --- the rules, on the repository ----------------------------------------------------------------

#[test]
fn files_and_functions_fit_on_a_screen_or_few() -> io::Result<()> {
    check_sources(complain_of_length)
}

#[test]
fn comments_are_no_wider_than_code() -> io::Result<()> {
    check_sources(complain_of_wide_comments)
}

#[test]
fn texts_are_plain_technical_english() -> io::Result<()> {
    let files = read_files(&root().join("crates"))?;
    let files = files.iter().filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".lua"));
    settle(files.map(|(path, text)| complain_of_words(path, text)));
    Ok(())
}

#[test]
fn what_may_stand_only_at_some_places_stands_there() -> io::Result<()> {
    check_sources(|source| BANS.iter().flat_map(|ban| complain_of_banned(ban, source)).collect())
}

#[test]
fn every_exception_is_of_a_file() -> io::Result<()> {
    let files = read_files(&root().join("crates"))?;
    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    settle(BANS.iter().map(|ban| complain_of_idle_exceptions(ban, &paths)));
    Ok(())
}

#[test]
fn what_the_workspace_lists_some_crate_depends_on() -> io::Result<()> {
    let workspace = fs::read_to_string(root().join("Cargo.toml"))?;
    let manifests = read_files(&root().join("crates"))?;
    let manifests: Vec<&str> = manifests
        .iter()
        .filter(|(path, _)| path.ends_with("/Cargo.toml"))
        .map(|(_, text)| text.as_str())
        .collect();
    settle(std::iter::once(complain_of_unused_dependencies(&workspace, &manifests)));
    Ok(())
}

#[test]
fn modules_use_what_stands_before_them() -> io::Result<()> {
    check_sources(complain_of_arrows)
}

#[test]
fn modules_of_the_domain_import_in_no_circle() -> io::Result<()> {
    let files = read_files(&root().join("crates/domain/src"))?;
    let files = files.iter().filter(|(path, _)| path.ends_with(".rs") && !path.ends_with("/tests.rs"));
    let sources: Vec<Source> = files.map(|(path, text)| Source::new(path, text)).collect();
    settle(std::iter::once(circles(&sources, "crates/domain/src/")));
    Ok(())
}

#[test]
fn the_domain_brings_few_packages() -> io::Result<()> {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--package", "pricing-domain", "--edges", "normal"]);
    let output = cargo.args(["--prefix", "none", "--no-dedupe"]).current_dir(root()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    let packages: std::collections::BTreeSet<&str> =
        tree.lines().map(|line| line.split(" (").next().unwrap_or(line)).collect();
    let others = packages.len() - 1;
    assert!(others <= MAX_DOMAIN_PACKAGES, "{others} packages, allowed {MAX_DOMAIN_PACKAGES}: {packages:?}");
    Ok(())
}

#[test]
fn names_say_what_is_inside() -> io::Result<()> {
    check_sources(complain_of_names)
}

#[test]
fn crates_and_modules_open_with_a_document() -> io::Result<()> {
    check_sources(complain_of_missing_document)
}

#[test]
fn crates_depend_along_the_arrows() -> io::Result<()> {
    let manifests = read_files(&root().join("crates"))?;
    let manifests = manifests.iter().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    settle(manifests.map(|(path, text)| complain_of_dependencies(path, text)));
    Ok(())
}

#[test]
fn files_name_no_home_directory() -> io::Result<()> {
    let files = read_files(&root())?;
    settle(files.iter().map(|(path, text)| complain_of_home_directories(path, text)));
    Ok(())
}

// --- reading the repository ----------------------------------------------------------------------

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn check_sources(rule: impl Fn(&Source) -> Vec<String>) -> io::Result<()> {
    let files = read_files(&root().join("crates"))?;
    let sources = files.iter().filter(|(path, _)| path.ends_with(".rs"));
    settle(sources.map(|(path, text)| rule(&Source::new(path, text))));
    Ok(())
}

/// Fails with all complaints at once, and when nothing was looked at.
fn settle(complaints: impl Iterator<Item = Vec<String>>) {
    let complaints: Vec<_> = complaints.collect();
    assert!(!complaints.is_empty(), "found no file to look at");
    let complaints = complaints.concat();
    assert!(complaints.is_empty(), "\n\n{}\n", complaints.join("\n"));
}

/// The text files below a directory, each with its path from the root. Skips what git ignores.
pub(crate) fn read_files(directory: &Path) -> io::Result<Vec<(String, String)>> {
    const SKIPPED: &[&str] = &[".data", ".git", "__pycache__", "complete-journey", "node_modules", "target"];
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(read_files(&path)?);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let from_root = path.strip_prefix(root()).unwrap_or(&path);
            files.push((from_root.to_string_lossy().replace('\\', "/"), text));
        }
    }
    Ok(files)
}
