//! A checkout of the repository, and its builds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A source directory and its Cargo target directory.
pub(crate) struct Checkout {
    directory: PathBuf,
    target: PathBuf,
}

impl Checkout {
    /// Returns the checkout that this program was built in, with the program's target directory.
    pub(crate) fn own() -> Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(2).context("this program is in no target directory")?;
        Ok(Self { directory, target: target.to_owned() })
    }

    /// Returns the same sources with a target directory of this name below the current one.
    pub(crate) fn with_target(&self, name: &str) -> Self {
        Self { directory: self.directory.clone(), target: self.target.join(name) }
    }

    /// The root of the sources.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The Cargo target directory.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Returns the commit that is checked out, and whether the sources differ from it; pages of `docs`, which
    /// tasks write, are none.
    pub(crate) fn commit(&self) -> Result<String> {
        let hash = self.output("git", &["rev-parse", "--short", "HEAD"])?;
        let is_clean = self
            .command("git", &["diff", "--quiet", "HEAD", "--", ".", ":(exclude)docs"])
            .status()?
            .success();
        Ok(format!("{}{}", hash.trim(), if is_clean { "" } else { " with changes" }))
    }

    /// Checks out a commit below this checkout's target directory; the checkouts of all commits share built
    /// dependencies.
    pub(crate) fn of_commit(&self, revision: &str) -> Result<Self> {
        let commit = format!("{revision}^{{commit}}");
        let hash = self.output("git", &["rev-parse", "--verify", "--short=12", &commit])?;
        let base = self.target.join("against");
        let directory = base.join(hash.trim());
        if !directory.join("Cargo.toml").is_file() {
            std::fs::create_dir_all(&base)?;
            let path = directory.to_str().context("the target directory's name is no UTF-8")?;
            // Forced, as git still knows a worktree that was removed with the target directory.
            self.output("git", &["worktree", "add", "--quiet", "--detach", "--force", path, hash.trim()])?;
        }
        Ok(Self { directory, target: base.join("target") })
    }

    /// Builds the services in release mode and returns their directory.
    pub(crate) fn build_services(&self) -> Result<PathBuf> {
        let arguments = ["build", "--locked", "--release", "--workspace", "--bins"];
        self.run("cargo", &arguments)?;
        Ok(self.target.join("release"))
    }

    /// Builds all programs, without optimisation, and returns their directory.
    pub(crate) fn build_programs(&self) -> Result<PathBuf> {
        self.run("cargo", &["build", "--locked", "--workspace", "--bins"])?;
        Ok(self.target.join("debug"))
    }

    /// Builds a bench and returns its program.
    pub(crate) fn build_bench(&self, bench: &str) -> Result<PathBuf> {
        let arguments = ["bench", "--locked", "--workspace", "--bench", bench, "--no-run"];
        self.run("cargo", &arguments)?;
        let messages =
            self.output("cargo", &[&arguments[..], &["--quiet", "--message-format", "json"]].concat())?;
        let mut built = messages.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let is_bench = message.pointer("/target/name")? == bench;
            message.get("executable")?.as_str().filter(|_| is_bench).map(PathBuf::from)
        });
        built.next_back().with_context(|| format!("Cargo names no program of the bench {bench}"))
    }

    /// Reads the files `crates/*/benches/*/instructions.txt`, ordered by name.
    pub(crate) fn counts(&self) -> Result<Vec<Counts>> {
        let mut found = Vec::new();
        for of_crate in std::fs::read_dir(self.directory.join("crates"))? {
            let Ok(benches) = std::fs::read_dir(of_crate?.path().join("benches")) else { continue };
            for bench in benches {
                let file = bench?.path().join("instructions.txt");
                if file.is_file() {
                    found.push(Counts::read(file)?);
                }
            }
        }
        found.sort_by(|left, right| left.file.cmp(&right.file));
        Ok(found)
    }

    /// Runs a command in the checkout, with its output shown.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        succeed(self.command(program, arguments))
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program, arguments);
        let output =
            command.stderr(Stdio::inherit()).output().with_context(|| format!("running {program}"))?;
        ensure!(output.status.success(), "{program} {} failed", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Creates a command that runs in the checkout.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.directory).env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

/// Runs a command, with its output shown; fails if it does.
pub(crate) fn succeed(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The saved instruction counts of a bench, a line "WORK COUNT" for each work.
pub(crate) struct Counts {
    file: PathBuf,
    /// The name of the bench, which is that of its directory.
    pub(crate) bench: String,
    pub(crate) works: Vec<(String, u64)>,
}

impl Counts {
    fn read(file: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let works = text.lines().map(|line| {
            let (work, count) =
                line.split_once(' ').with_context(|| format!("\"{line}\" is not WORK COUNT"))?;
            Ok((work.to_owned(), count.parse().with_context(|| format!("the count of {work}"))?))
        });
        let works = works.collect::<Result<_>>()?;
        let directory = file.parent().and_then(Path::file_name).context("the file is in no directory")?;
        Ok(Self { bench: directory.to_string_lossy().into_owned(), works, file })
    }

    pub(crate) fn write(&self) -> Result<()> {
        let lines: String = self.works.iter().map(|(work, count)| format!("{work} {count}\n")).collect();
        Ok(std::fs::write(&self.file, lines)?)
    }
}
