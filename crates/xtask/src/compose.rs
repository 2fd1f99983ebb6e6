//! Starts docker-compose.yml and checks it from outside: `./dev compose`.
//!
//! [`run`] starts the containers, [`check`] checks them once they are healthy, [`last_run`] returns when they
//! were last checked.

#![expect(clippy::indexing_slicing, reason = "what a JSON value lacks is null")]

mod backup;
mod check;
mod containers;
mod events;
mod http;
mod kills;
mod load;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use chrono::Utc;

use self::check::CHECKS;
use self::containers::Stack;
pub(crate) use self::http::request;
use crate::checkout::{Checkout, succeed};
use crate::tee::{Kept, tee};

const REPORT: &str = "compose-check.txt";
/// Names a directory with `compose-e2e.sh`, which runs a compose file without a registry, on images that it
/// builds. Its arguments are the project, the directory `standins`, and the command that checks.
const WITHOUT_REGISTRY: &str = "COMPOSE_WITHOUT_REGISTRY";
/// The Compose command, with a separate project.
const COMPOSE: [&str; 4] = ["docker", "compose", "-p", "pricing-check"];
/// The ports of the APIs, passed to Compose; several APIs need several ports.
const API_PORTS: (&str, &str) = ("API_PORT", "8000-8009");

/// Starts the containers, checks them, and writes a report.
pub(crate) fn run() -> Result<()> {
    let checkout = Checkout::own()?;
    let began = Instant::now();
    let mut report = File::create(checkout.target().join(REPORT))?;
    match std::env::var_os(WITHOUT_REGISTRY) {
        Some(directory) => check_without_registry(&checkout, Path::new(&directory), &mut report)?,
        None if answers(&checkout, &["info"]) && answers(&checkout, &["compose", "version"]) => {
            check_with_docker(&checkout, &mut report)?;
        }
        None => bail!("no Docker engine with Compose v2 answers: install one and try again"),
    }
    let (today, commit) = (Utc::now().format("%F"), checkout.commit()?);
    let line = format!("run on {today} at {commit}, {} min", began.elapsed().as_secs() / 60);
    println!("{line}");
    Ok(writeln!(report, "{line}")?)
}

fn answers(checkout: &Checkout, arguments: &[&str]) -> bool {
    let mut docker = checkout.command("docker", arguments);
    docker.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn check_with_docker(checkout: &Checkout, report: &mut File) -> Result<()> {
    eprintln!("\n==> Building the image and starting everything: about 15 minutes the first time");
    let down = Down(checkout);
    succeed(compose(checkout, &["up", "--detach", "--build", "--wait"]))?;
    let mut check = Command::new(std::env::current_exe()?);
    check.arg("compose-check").args(COMPOSE).env(API_PORTS.0, API_PORTS.1);
    tee(check, Kept::Output, report)?;
    drop(down);
    Ok(())
}

fn compose(checkout: &Checkout, arguments: &[&str]) -> Command {
    let mut compose = checkout.command("docker", &[&COMPOSE[1..], arguments].concat());
    compose.env(API_PORTS.0, API_PORTS.1);
    compose
}

/// Removes the containers and their volumes on drop.
struct Down<'a>(&'a Checkout);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        if let Err(error) = succeed(compose(self.0, &["--profile", "*", "down", "--volumes"])) {
            eprintln!("{error:#}");
        }
    }
}

fn check_without_registry(checkout: &Checkout, directory: &Path, report: &mut File) -> Result<()> {
    eprintln!("\n==> Starting a Docker engine with images made here: about 20 minutes");
    let script = directory.join("compose-e2e.sh");
    ensure!(script.is_file(), "{WITHOUT_REGISTRY} is set, but there is no {}", script.display());
    let program = std::env::current_exe()?;
    let check = format!("'{}' compose-check docker-compose -p e2e", program.display());
    let mut command = checkout.command(&script.to_string_lossy(), &["."]);
    command.arg(directory.join("standins")).arg(check).env(API_PORTS.0, API_PORTS.1);
    tee(command, Kept::OutputAndErrors, report)
}

/// Checks the stack, which must be up and healthy with APIs on the ports 8000 to 8009, and prints the
/// results. Fails if any check does.
pub(crate) fn check(program: &str, arguments: &[&str]) -> Result<()> {
    let stack = Stack::new(Checkout::own()?, program, arguments);
    let mut failed = 0;
    for (number, (promise, check)) in (1..).zip(CHECKS) {
        let began = Instant::now();
        let (mark, evidence) = match check(&stack) {
            Ok(evidence) => ("ok", evidence),
            Err(problem) => {
                failed += 1;
                ("FAILED", format!("{problem:#}"))
            }
        };
        println!("{number}. {promise}: {mark} ({:.1} s)\n     {evidence}", began.elapsed().as_secs_f64());
    }
    println!("{} of {} checks passed", CHECKS.len() - failed, CHECKS.len());
    ensure!(failed == 0, "{failed} checks have failed");
    Ok(())
}

/// Returns when the containers were last checked, as that takes too long for every change.
pub(crate) fn last_run(checkout: &Checkout) -> String {
    let not_run = "NOT RUN: ./dev compose, which checks docker-compose.yml";
    match last_line(&checkout.target().join(REPORT)) {
        Ok(line) => format!("{not_run}; here it was last {line}"),
        Err(_) => format!("{not_run}; it has never been run here"),
    }
}

fn last_line(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file)?;
    Ok(text.lines().next_back().context("it is empty")?.to_owned())
}
