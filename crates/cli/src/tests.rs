//! Tests of the command line.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[track_caller]
fn check_refused(arguments: &[&str], kind: ErrorKind) {
    let words = std::iter::once(&"pricing").chain(arguments);
    let refusal = CommandLine::try_parse_from(words).err();
    assert_eq!(refusal.map(|error| error.kind()), Some(kind), "{arguments:?}");
}

#[test]
fn wrong_usage_is_refused() {
    check_refused(&["quote", "P-1"], ErrorKind::MissingRequiredArgument);
    check_refused(&["quote", "verify", "a.b.c"], ErrorKind::MissingRequiredArgument);
    check_refused(
        &["quote", "verify", "a.b.c", "--keys", "k", "--prime"],
        ErrorKind::MissingRequiredArgument,
    );
    check_refused(&["quote", "P-1", "--location", "NY", "--quantity", "-1"], ErrorKind::UnknownArgument);
    check_refused(&["simulate", "summer.yaml", "--all"], ErrorKind::MissingRequiredArgument);
    check_refused(&["explain", "P-1", "--prime"], ErrorKind::MissingRequiredArgument);
    check_refused(&["import", "products.csv", "--format", "xml"], ErrorKind::InvalidValue);
    check_refused(&["import", "-"], ErrorKind::MissingRequiredArgument);
    check_refused(&["up", "--listen", "8000"], ErrorKind::ValueValidation);
    for url in ["localhost:8000", "ftp://127.0.0.1", "8000"] {
        check_refused(&["doctor", "--url", url], ErrorKind::ValueValidation);
    }
}

#[test]
fn usual_commands_are_understood() {
    for arguments in [
        "up",
        "up --listen 127.0.0.1:0 --data-dir data --redis-url redis://r --database-url postgres://d --no-sample",
        "import products.csv --dry-run --json",
        "import - --format ndjson --url http://127.0.0.1:9000",
        "quote P-1 --location NY --prime --quantity 3 --channel app --segment vip --json",
        "quote P-1 --location NY --lock",
        "quote --location NY -- verify",
        "quote new-key key.pem",
        "quote verify a.b.c --keys keys.json --product P-1 --quantity 2 --location NY --prime --channel app --segment vip",
        "explain P-1",
        "explain P-1 --location NY --prime --quantity 3 --channel app --segment vip --json",
        "history P-1 --limit 5 --json",
        "policy list --json",
        "policy show 3",
        "policy check -",
        "policy publish summer.yaml --author zoe --note warm --only-after 3 --approved-by kim",
        "policy rollback 2 --url https://pricing.example.com",
        "policy diff 1",
        "policy diff 1 latest",
        "simulate summer.yaml --products moves.csv --all --json",
        "approve 01a2 --by zoe --reject",
        "approve events --by zoe --product P-1 --product P-2",
        "approve",
        "doctor --json",
        "backup catalogue.backup --data-dir data",
        "restore catalogue.backup --database-url postgres://d --replace",
    ] {
        let words = std::iter::once("pricing").chain(arguments.split(' '));
        let parsed = CommandLine::try_parse_from(words);
        assert!(parsed.is_ok(), "{arguments}: {parsed:?}");
    }
}
