//! Installs packages of PyPI and npm that a test runs, in pinned versions, below `target/tools`.
//!
//! A package that cannot be installed is an error: no test is skipped silently.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::target_directory;
use crate::programs::find_program;

/// An interpreter with packages.
#[derive(Debug, Clone)]
pub struct Packages {
    /// The interpreter.
    pub program: PathBuf,
    /// Where the packages are.
    pub directory: PathBuf,
}

impl Packages {
    /// A Python environment with the packages of this `requirements.txt`.
    pub fn python(name: &str, requirements: &Path) -> Result<Self> {
        let python = find_program("python3", "python3")?;
        let directory = install(name, requirements, |directory| {
            run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(directory))?;
            let mut pip = Command::new(directory.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
            run(pip.arg(requirements))
        })?;
        Ok(Self { program: directory.join("bin/python"), directory })
    }

    /// Node with the packages of this `package-lock.json`, which is beside its `package.json`.
    pub fn node(name: &str, lock: &Path) -> Result<Self> {
        let (node, npm) = (find_program("node", "nodejs")?, find_program("npm", "npm")?);
        let directory = install(name, lock, |directory| {
            for file in [lock.to_owned(), lock.with_file_name("package.json")] {
                fs::copy(&file, directory.join(file.file_name().unwrap_or_default()))?;
            }
            let mut install = Command::new(&npm);
            install.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
            run(install.arg("--prefix").arg(directory))
        })?;
        Ok(Self { program: node, directory })
    }
}

/// Installs into a directory of this name, unless it has what the list says. Tests in other processes that
/// need the same packages wait.
fn install(name: &str, list: &Path, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let directory = target_directory()?.join("tools").join(name);
    fs::create_dir_all(&directory)?;
    let lock = File::create(directory.with_extension("lock"))?;
    lock.lock()?;
    let (wanted, installed) = (fs::read_to_string(list)?, directory.join("installed"));
    if fs::read_to_string(&installed).ok().as_ref() != Some(&wanted) {
        install(&directory).with_context(|| format!("installing the packages of {}", list.display()))?;
        fs::write(installed, wanted)?;
    }
    Ok(directory)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
    Ok(())
}
