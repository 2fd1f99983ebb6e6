//! Finds the servers' programs, and names the package to install if one is missing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};

/// The directory with `initdb`, `postgres` and `psql` of another version, to run the tests on it.
const POSTGRES_DIRECTORY: &str = "PRICING_TEST_POSTGRES";

/// The directory with `redis-server` or `valkey-server` of another version, to run the tests on it.
const REDIS_DIRECTORY: &str = "PRICING_TEST_REDIS";

/// The programs of one PostgreSQL installation, all of the same version.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPrograms {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) psql: PathBuf,
    pub(crate) pg_dump: PathBuf,
    /// Part of the client; only replicas need it.
    pub(crate) pg_basebackup: PathBuf,
}

impl PostgresPrograms {
    /// Those in the directory that `PRICING_TEST_POSTGRES` names. Without it, searches `PATH`, then Debian's
    /// directories outside `PATH`, of which the newest version is used.
    pub(crate) fn find() -> Result<Self> {
        let named = std::env::var_os(POSTGRES_DIRECTORY).map(PathBuf::from);
        let directory = named.or_else(postgres_directory_on_path).or_else(newest_debian_directory);
        let directory = directory.ok_or_else(|| {
            anyhow!("initdb is neither on PATH nor in /usr/lib/postgresql/*/bin: install postgresql")
        })?;
        let programs = Self {
            initdb: directory.join("initdb"),
            postgres: directory.join("postgres"),
            psql: directory.join("psql"),
            pg_dump: directory.join("pg_dump"),
            pg_basebackup: directory.join("pg_basebackup"),
        };
        for program in [&programs.initdb, &programs.postgres, &programs.psql] {
            ensure!(
                program.exists(),
                "{} does not exist: install the server and the client of postgresql",
                program.display()
            );
        }
        Ok(programs)
    }
}

/// Returns the full path of a program on `PATH`; the error names the `package` that provides it.
pub(crate) fn find_program(name: &str, package: &str) -> Result<PathBuf> {
    on_path(name).ok_or_else(|| anyhow!("{name} is not on PATH: install {package}"))
}

/// Returns the full path of `redis-server`, or of `valkey-server`: in the directory that `PRICING_TEST_REDIS`
/// names, or else on `PATH`.
pub(crate) fn find_redis_server() -> Result<PathBuf> {
    let Some(directory) = std::env::var_os(REDIS_DIRECTORY).map(PathBuf::from) else {
        return find_program("redis-server", "redis-server");
    };
    let programs = ["redis-server", "valkey-server"].map(|name| directory.join(name));
    let program = programs.into_iter().find(|program| program.is_file());
    program.ok_or_else(|| anyhow!("{} has neither redis-server nor valkey-server", directory.display()))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|candidate| candidate.is_file())
}

/// Resolves links first: a lone link to `initdb` on `PATH` has no `psql` beside it, but its target has.
fn postgres_directory_on_path() -> Option<PathBuf> {
    let initdb = fs::canonicalize(on_path("initdb")?).ok()?;
    initdb.parent().map(Path::to_path_buf)
}

fn newest_debian_directory() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let directory = entry.path().join("bin");
            directory.join("initdb").is_file().then_some((version, directory))
        })
        .max()
        .map(|(_, directory)| directory)
}
