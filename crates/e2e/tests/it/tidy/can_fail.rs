//! Every rule can fail: each is shown bad code and is expected to complain, and good code and is expected not
//! to.

use super::circles::circles;
use super::rules::{
    complain_of_arrows, complain_of_banned, complain_of_dependencies, complain_of_home_directories,
    complain_of_idle_exceptions, complain_of_length, complain_of_missing_document, complain_of_names,
    complain_of_unused_dependencies, complain_of_wide_comments,
};
use super::source::Source;
use super::words::{BANNED_WORDS, EXCEPTIONS, complain_of_words};
use super::{BANS, Ban, Found};

/// Expects one complaint that contains each of the texts.
fn expect_complaint(complaints: &[String], texts: &[&str]) {
    assert_eq!(complaints.len(), 1, "expected one complaint, got {complaints:?}");
    let complaint = complaints.concat();
    for text in texts {
        assert!(complaint.contains(text), "{complaint:?} does not contain {text:?}");
    }
}

#[test]
fn every_ban_complains_of_each_of_its_texts() {
    for ban in BANS {
        let (texts, written): (_, fn(&str) -> String) = match ban.found {
            Found::Words(words) => (words, |word| format!("let x =\n{word} y;")),
            Found::Literals(beginnings) => (beginnings, |beginning| format!("let x =\n\"{beginning}y\";")),
        };
        for text in texts {
            let bad = written(text);
            let complaints = |path: &str, text: &str| complain_of_banned(ban, &Source::new(path, text));
            let path = format!("{}x/src/y.rs", ban.inside);
            expect_complaint(&complaints(&path, &bad), &["y.rs:2: ", text, ban.why]);

            for commented in [format!("// {text}"), format!("/* \"{text}\" */"), format!("x_{text}_x")] {
                assert!(complaints(&path, &commented).is_empty(), "{commented}");
            }
            assert!(complaints(&path, &format!("#[cfg(test)]\nmod tests {{ {bad} }}")).is_empty());
            assert!(complaints("elsewhere/x.rs", &bad).is_empty());
            for place in ban.except {
                let path = place.replace('*', ban.inside);
                assert!(complaints(&path, &bad).is_empty(), "{path}");
            }
        }
    }
}

#[test]
fn what_is_too_long_is_complained_of() {
    let lines = |count: usize| "x;\n".repeat(count);
    let function = |count: usize| format!("\nfn long() {{\n{}}}\n", lines(count));
    let complaints = |text: &str| complain_of_length(&Source::new("x.rs", text));
    expect_complaint(&complaints(&lines(601)), &["x.rs:1: 601 lines"]);
    expect_complaint(&complaints(&function(69)), &["x.rs:2: `long` has 71 lines"]);
    assert!(complaints(&lines(600)).is_empty());
    assert!(complaints(&function(68)).is_empty());
}

#[test]
fn an_arrow_that_goes_back_is_complained_of() {
    let complaints =
        |file: &str, text: &str| complain_of_arrows(&Source::new(&format!("crates/core/src/{file}"), text));
    expect_complaint(
        &complaints("cache/l1.rs", "\nuse crate::reprice::x;"),
        &["l1.rs:2: `cache` uses `reprice`"],
    );
    expect_complaint(
        &complaints("health.rs", "use crate::{keys, reprice::{lease, x}};"),
        &["uses `reprice`"],
    );
    expect_complaint(&complaints("events/mod.rs", "fn f(x: &crate::jobs::X)"), &["`events` uses `jobs`"]);
    expect_complaint(
        &complaints("jobs/rule.rs", "use crate::{\n    unheard_of,\n};"),
        &["uses `unheard_of`"],
    );
    expect_complaint(&complaints("unheard_of.rs", ""), &["has no row in tidy.rs"]);
    expect_complaint(&complaints("redis.rs", "use super::reprice;"), &["write `crate::`"]);
    expect_complaint(&complaints("cache/l1.rs", "use super::super::reprice;"), &["write `crate::`"]);

    for (file, text) in [
        ("cache/l1.rs", "use crate::{cache::l2, keys, lease::{reprice, x}};"),
        ("cache/mod.rs", "// crate::reprice"),
        ("cache/l1.rs", "use super::l2;"),
        ("redis.rs", "#[cfg(test)]\nmod tests { use super::*; use crate::reprice; }"),
        ("lib.rs", "pub use crate::reprice::x;"),
    ] {
        assert_eq!(complaints(file, text), [""; 0], "{file}: {text}");
    }
}

#[test]
fn a_comment_wider_than_code_is_complained_of() {
    let complaints = |text: &str| complain_of_wide_comments(&Source::new("crates/core/src/keys.rs", text));
    let wide = "word ".repeat(21);
    expect_complaint(
        &complaints(&format!("fn f() {{}}\n    /// {wide}end")),
        &["keys.rs:2: a comment of 116"],
    );
    for text in
        [format!("// {}", wide.trim()), format!("//! | {wide}|"), format!("let x = \"{wide}{wide}\";")]
    {
        assert_eq!(complaints(&text), [""; 0], "{text}");
    }
}

#[test]
fn a_banned_word_in_a_text_is_complained_of() {
    for (phrase, instead) in BANNED_WORDS {
        let divided = phrase.replace(' ', "\n    /// ");
        let script = format!("\n-- It is {phrase}.");
        for (path, text) in [
            ("crates/x/src/y.rs", format!("x;\n    /// It is {divided}\n    /// here.")),
            ("crates/x/src/y.rs", format!("\nlog(\"{phrase}: {{x}}\");")),
            ("crates/x/src/y.rs", format!("\nlog(\"x\\n{}\");", phrase.to_uppercase())),
            ("crates/x/src/y.lua", script.clone()),
        ] {
            expect_complaint(&complain_of_words(path, &text), &[":2: ", &format!("`{phrase}`"), instead]);
        }
        let name = phrase.replace(' ', "_");
        for text in [format!("let {name} = 1;"), format!("// jobs_{name}_total")] {
            assert_eq!(complain_of_words("crates/x/src/y.rs", &text), [""; 0], "{text}");
        }
        for exception in EXCEPTIONS {
            assert_eq!(complain_of_words(exception, &script), [""; 0], "{exception}");
        }
    }
}

#[test]
fn a_circle_is_complained_of_with_its_way() {
    let source = |file: &str, text: &str| Source::new(&format!("crates/domain/src/{file}.rs"), text);
    let price = source("pricing/price", "use crate::facts::money::X;\nuse crate::pricing::{self};");
    let apart = [price, source("facts/money", "// crate::pricing::price"), source("pricing/mod", "")];
    assert_eq!(circles(&apart, "crates/domain/src/"), [""; 0]);
    let round = [
        source("facts/money", "use crate::facts::instant;"),
        source("facts/instant", "fn f(x: crate::policy::rule::X)"),
        source(
            "policy/rule",
            "use crate::facts::money::{A, B};\n#[cfg(test)]\nmod tests { use crate::policy::rule; }",
        ),
    ];
    let found = circles(&round, "crates/domain/src/");
    expect_complaint(&found, &["facts/instant → policy/rule → facts/money → facts/instant"]);
}

#[test]
fn a_dependency_against_the_arrows_is_complained_of() {
    let complaints = |text: &str| complain_of_dependencies("crates/worker/Cargo.toml", text);
    let refused = "Cargo.toml:2: `worker` depends on `pricing-api`";
    expect_complaint(&complaints("[dependencies]\npricing-api.workspace = true"), &[refused]);
    expect_complaint(&complaints("[dev-dependencies]\npricing-api = { path = \"../api\" }"), &[refused]);
    expect_complaint(&complaints("[target.'cfg(unix)'.dependencies]\npricing-api = \"1\""), &[refused]);
    expect_complaint(&complaints("\n[dependencies.pricing-api]\nworkspace = true"), &[refused]);
    expect_complaint(&complaints("[dependencies]\nsqlx.workspace = true"), &["depends on `sqlx`"]);
    assert!(
        complaints("[dependencies]\npricing-core.workspace = true\nsqlx-like = \"1\"\n[features]\nsqlx = []")
            .is_empty()
    );
}

#[test]
fn an_exception_of_no_file_is_complained_of() {
    let ban = Ban {
        found: Found::Words(&["x"]),
        inside: "crates/",
        except: &["crates/core/src/lease.rs", "crates/core/src/jobs/", "*/config.rs"],
        why: "of a test",
    };
    let paths = ["crates/core/src/lease/mod.rs", "crates/core/src/jobs/mod.rs", "crates/api/src/config.rs"];
    expect_complaint(&complain_of_idle_exceptions(&ban, &paths), &["`crates/core/src/lease.rs`"]);
    assert_eq!(complain_of_idle_exceptions(&ban, &[]).len(), 3);
}

#[test]
fn a_dependency_that_no_crate_has_is_complained_of() {
    let workspace = "[workspace]\nmembers = []\n\n[workspace.dependencies]\n# bytes\nanyhow = \"1\"\n\n\
        bytes = { version = \"1\" }\n\n[profile.dev]\ndebug = 0\n";
    let complaints = |manifests: &[&str]| complain_of_unused_dependencies(workspace, manifests);
    let manifest = "[dependencies]\nanyhow.workspace = true\n";
    expect_complaint(&complaints(&[manifest, "bytes-like = \"1\""]), &["no crate depends on `bytes`"]);
    assert_eq!(complaints(&[manifest, "bytes = { workspace = true }"]), [""; 0]);
}

#[test]
fn an_empty_name_is_complained_of() {
    let complaints = |path: &str, text: &str| complain_of_names(&Source::new(path, text));
    expect_complaint(&complaints("crates/api/src/utils.rs", ""), &["utils.rs:1: `utils` says nothing"]);
    expect_complaint(&complaints("crates/api/src/models/x.rs", ""), &["`models` says nothing"]);
    expect_complaint(
        &complaints("crates/api/src/lib.rs", "\nmod helpers { }"),
        &["lib.rs:2: `helpers` says nothing"],
    );
    assert!(complaints("crates/api/src/x.rs", "mod helpers_of_nobody; // mod utils").is_empty());
}

#[test]
fn a_missing_document_is_complained_of() {
    let complaints = |path: &str, text: &str| complain_of_missing_document(&Source::new(path, text));
    expect_complaint(&complaints("crates/api/src/lib.rs", "/// X\nmod x;"), &["lib.rs:1: begin with `//!`"]);
    expect_complaint(&complaints("crates/api/src/routes/mod.rs", ""), &["mod.rs:1: begin with `//!`"]);
    assert!(complaints("crates/api/src/lib.rs", "//! The API.").is_empty());
    assert!(complaints("crates/api/src/router.rs", "").is_empty());
}

#[test]
fn a_home_directory_is_complained_of() {
    for bad in
        [["\ncd /ro", "ot/x"].concat(), ["\n\"/ho", "me/ada/x\""].concat(), ["\n/Us", "ers/ada"].concat()]
    {
        expect_complaint(
            &complain_of_home_directories("README.md", &bad),
            &["README.md:2: a home directory"],
        );
    }
    assert!(complain_of_home_directories("README.md", "see docs/network/root.md").is_empty());
}
