//! `pg_dump` and `pg_restore`: their versions, and how they reach a database.
//!
//! A URL goes to them without its password, which others could read in the list of processes; the password
//! goes into `PGPASSWORD`.

use std::env;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use reqwest::Url;
use tokio::process::Command;

/// Where most systems keep the certificates that they trust; libpq looks nowhere by default.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Parameters of a URL that libpq does not know by sqlx's name, and its own name for them.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];
/// Parameters that both know.
const SAME_NAMES: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "hostaddr", "port", "user", "dbname"];

/// A `pg_dump` that can dump the server.
#[derive(Debug)]
pub(super) struct PgDump(());

/// A `pg_restore` that can restore into the server.
#[derive(Debug)]
pub(super) struct PgRestore(());

impl PgDump {
    pub(super) async fn find(server: u32) -> Result<Self> {
        check_version("pg_dump", server).await?;
        Ok(Self(()))
    }

    /// Dumps the database into this file.
    pub(super) async fn dump(&self, url: &str, file: &Path) -> Result<()> {
        let server = Connection::of(url)?;
        let mut command = server.command("pg_dump");
        // Without what earlier restores have renamed.
        command.args(["--format=custom", "--schema=public", "--no-password", "--file"]).arg(file);
        run("pg_dump", command).await?;
        Ok(())
    }
}

impl PgRestore {
    pub(super) async fn find(server: u32) -> Result<Self> {
        check_version("pg_restore", server).await?;
        Ok(Self(()))
    }

    /// Restores the tables of this dump in one transaction. They belong to the user of the URL.
    pub(super) async fn restore(&self, file: &Path, url: &str) -> Result<()> {
        let server = Connection::of(url)?;
        let mut command = server.command("pg_restore");
        command.args(["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]);
        command.args(["--no-password", "--schema=public"]).arg(file);
        run("pg_restore", command).await?;
        Ok(())
    }
}

/// Checks that a dump can be read and is one of a catalogue.
pub(super) async fn check_archive(file: &Path) -> Result<()> {
    let mut command = Command::new("pg_restore");
    command.arg("--list").arg(file);
    let contents = run("pg_restore", command).await?;
    if !contents.lines().any(|line| line.contains("TABLE DATA public catalogue_identity")) {
        bail!("{} is a dump of another database: it has no catalogue in the schema public", file.display());
    }
    Ok(())
}

/// A database as libpq's programs are given it.
#[derive(Debug, PartialEq, Eq)]
struct Connection {
    url: String,
    password: Option<String>,
}

impl Connection {
    fn of(url: &str) -> Result<Self> {
        let mut url = Url::parse(url).context("the database URL cannot be read")?;
        let mut password = url.password().map(percent_decoded);
        let _ = url.set_password(None);
        let mut parameters = Vec::new();
        for (name, value) in url.query_pairs() {
            if name == "password" {
                password = Some(value.into_owned());
                continue;
            }
            let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, own)| *own);
            if let Some(name) = other.or_else(|| SAME_NAMES.into_iter().find(|own| *own == name)) {
                parameters.push((name, value.into_owned()));
            }
        }
        let value =
            |wanted| parameters.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
        let verifies = value("sslmode").is_some_and(|mode| mode.starts_with("verify"));
        if verifies && value("sslrootcert").is_none() {
            let own = env::var("SSL_CERT_FILE").ok().filter(|file| !file.is_empty());
            parameters.push(("sslrootcert", own.unwrap_or_else(|| SYSTEM_AUTHORITIES.to_owned())));
        }
        url.set_query(None);
        let mut written = url.to_string();
        for (index, (name, value)) in parameters.iter().enumerate() {
            let sign = if index == 0 { '?' } else { '&' };
            written.push_str(&format!("{sign}{name}={}", percent_encoded(value)));
        }
        Ok(Self { url: written, password })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--dbname").arg(&self.url);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }
}

/// Refuses a program that is older than the server: it cannot read all of the server's tables.
async fn check_version(program: &str, server: u32) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("--version");
    let said = run(program, command).await?;
    let version = major_version(&said).with_context(|| format!("{program} says \"{}\"", said.trim()))?;
    if version < server {
        bail!(
            "{program} {version} cannot serve PostgreSQL {server}: install the client of version {server} or \
             later, and put it first on PATH"
        );
    }
    Ok(())
}

/// The major version in `pg_dump (PostgreSQL) 15.4 (Debian …)`.
fn major_version(said: &str) -> Option<u32> {
    let number = said.split_once(") ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Runs a program to its end; returns its standard output.
async fn run(program: &str, mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| {
        format!("cannot run {program}: install PostgreSQL's client programs, or add them to PATH")
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.filter(|_| *first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// libpq reads `+` as itself, so form encoding is not used.
fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: &str, password: Option<&str>) {
        let connection = Connection::of(url).unwrap();
        assert_eq!((connection.url.as_str(), connection.password.as_deref()), (expected, password));
    }

    #[test]
    fn a_password_is_never_an_argument() {
        check("postgres://me:p%40s+s@db:5433/prices", "postgres://me@db:5433/prices", Some("p@s+s"));
        check(
            "postgres://me@db/prices?password=s%2Bx&statement-cache-capacity=10",
            "postgres://me@db/prices",
            Some("s+x"),
        );
        check(
            "postgres:///prices?host=/run/postgresql&user=me",
            "postgres:///prices?host=/run/postgresql&user=me",
            None,
        );
    }

    #[test]
    fn parameters_have_the_names_of_libpq() {
        check(
            "postgres://db/prices?ssl-mode=verify-full&ssl-ca=/a%20b.pem",
            "postgres://db/prices?sslmode=verify-full&sslrootcert=/a%20b.pem",
            None,
        );
    }

    #[test]
    fn the_major_version_is_found() {
        for (said, version) in [
            ("pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", Some(15)),
            ("pg_restore (PostgreSQL) 18beta1\n", Some(18)),
            ("something else", None),
        ] {
            assert_eq!(major_version(said), version);
        }
    }
}
