//! The variables of the services: the page, `--help` and what the programs read are the same.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pricing_api::config::ApiConfig;
use pricing_core::config::{ConfigError, LIBRARY_VARIABLES, SHARED_VARIABLES, Variable};
use pricing_core::service::ServiceConfig;
use pricing_e2e::ServiceProcess;
use pricing_listener::config::ListenerConfig;
use pricing_worker::config::WorkerConfig;

const PATIENCE: Duration = Duration::from_secs(60);

/// What stands on the page before and after the tables.
const OPENING: &str = include_str!("configuration/opening.md");
const CLOSING: &str = include_str!("configuration/closing.md");

/// The programs and their own variables.
const PROGRAMS: [(&str, &[Variable]); 3] = [
    ("pricing-api", ApiConfig::VARIABLES),
    ("pricing-worker", WorkerConfig::VARIABLES),
    ("pricing-listener", ListenerConfig::VARIABLES),
];

fn page() -> Result<String> {
    let mut text = OPENING.to_owned();
    let sections = [("All services", SHARED_VARIABLES)].into_iter().chain(PROGRAMS);
    for (title, variables) in sections.chain([("Read by libraries", LIBRARY_VARIABLES)]) {
        let title = if title.starts_with("pricing-") { format!("`{title}`") } else { title.to_owned() };
        write!(
            text,
            "\n## {title}\n\n| variable | default | allowed | used by | what it sets |\n|---|---|---|---|---|\n"
        )?;
        for Variable { name, default, allowed, used_by, text: sets, is_secret } in variables {
            let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
            let secret = if *is_secret { " **Secret**: may contain a password." } else { "" };
            writeln!(text, "| `{name}` | {default} | {allowed} | {used_by} | {sets}{secret} |")?;
        }
    }
    Ok(text + "\n" + CLOSING)
}

#[test]
fn the_page_is_made_of_the_tables() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, page()?)?;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, page()?, "write it again: BLESS=1 cargo test -p pricing-e2e --test it configuration");
    Ok(())
}

#[test]
fn each_service_reads_the_variables_of_its_tables_and_no_others() {
    check_reads::<ApiConfig>(ApiConfig::read);
    check_reads::<WorkerConfig>(WorkerConfig::read);
    check_reads::<ListenerConfig>(ListenerConfig::read);
}

/// The page's table of OpenTelemetry's variables names exactly those that the programs read, and says of no
/// other one that it is used.
#[test]
fn the_table_of_opentelemetrys_variables_is_complete() -> Result<()> {
    let (_, section) = CLOSING.split_once("## OpenTelemetry's variables").context("no section")?;
    let (table, rest) = section.split_once("\n\nAn endpoint").context("no table")?;
    let named = |text: &str| -> BTreeSet<String> {
        let words = text.split('`').filter(|word| word.starts_with("OTEL_") && !word.ends_with('_'));
        words.filter_map(|word| word.split('=').next()).map(str::to_owned).collect()
    };
    let of = |variables: &[Variable]| -> BTreeSet<String> {
        let names = variables.iter().map(|variable| variable.name.to_owned());
        names.filter(|name| name.starts_with("OTEL_")).collect()
    };
    let (read, library) = (of(SHARED_VARIABLES), of(LIBRARY_VARIABLES));
    assert_eq!(named(table), read);
    let (of_library, unused) = rest.split_once("Not used:").context("no list")?;
    ensure!(library.is_subset(&named(of_library)), "{library:?}");
    let (unused, _) = unused.split_once("\n\n").context("no end")?;
    let unused = &named(unused) - &library;
    ensure!(unused.len() > 3 && unused.is_disjoint(&read), "{unused:?}");
    Ok(())
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

#[track_caller]
fn check_reads<C: ServiceConfig>(read: fn(Lookup<'_>) -> Result<C, ConfigError>) {
    let asked = RefCell::new(BTreeSet::new());
    let config = read(&|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    });
    assert!(config.is_ok(), "the defaults are allowed: {:?}", config.err());
    let listed: BTreeSet<String> =
        C::VARIABLES.iter().chain(SHARED_VARIABLES).map(|variable| variable.name.to_owned()).collect();
    assert_eq!(asked.into_inner(), listed);
}

/// The exit code of a program and what it printed.
async fn run(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<(i32, String)> {
    let mut process = ServiceProcess::start(program, environment, arguments)?;
    let code = process.wait(PATIENCE).await?.code().context("it was killed")?;
    Ok((code, process.output()?))
}

#[tokio::test]
async fn help_lists_every_variable_even_if_one_of_them_cannot_be_used() -> Result<()> {
    for (program, own) in PROGRAMS {
        for argument in ["--help", "-h"] {
            let (code, printed) = run(program, &[("PRICING_METRICS", "nonsense")], &[argument]).await?;
            assert_eq!(code, 0, "{printed}");
            for Variable { name, default, .. } in own.iter().chain(SHARED_VARIABLES).chain(LIBRARY_VARIABLES)
            {
                let (_, row) = printed.split_once(&format!("    {name}\n")).context(*name)?;
                let row = row.split_once("Used by: ").context("a row has an end")?.0;
                let default = if default.is_empty() { "none" } else { default };
                ensure!(row.contains(&format!("Default: {default}\n")), "{name}: {row}");
            }
        }
        let (code, printed) = run(program, &[("PRICING_METRICS", "nonsense")], &["--version"]).await?;
        assert_eq!(code, 0, "{printed}");
        assert!(printed.starts_with(&format!("{program} {} ", env!("CARGO_PKG_VERSION"))), "{printed}");
        let (code, printed) = run(program, &[], &["--port"]).await?;
        assert_eq!(code, 64, "{printed}");
        assert!(printed.contains("--port") && printed.contains("--help"), "{printed}");
    }
    Ok(())
}

#[tokio::test]
async fn variables_of_the_command_line_are_on_the_page() -> Result<()> {
    let page = page()?;
    for verb in [&["up"][..], &["quote"], &["approve"], &["policy", "publish"], &["keys", "create"]] {
        let arguments = [verb, &["--help"]].concat();
        let (code, printed) = run("pricing", &[], &arguments).await?;
        assert_eq!(code, 0, "{printed}");
        let variables: Vec<&str> =
            printed.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).collect();
        assert!(!variables.is_empty(), "{printed}");
        for variable in variables {
            assert!(page.contains(&format!("| `{variable}` |")), "{variable} of {verb:?}");
        }
        let points_to_page = printed.contains("docs/configuration.md");
        assert_eq!(points_to_page, verb == ["up"], "{printed}");
    }
    Ok(())
}
