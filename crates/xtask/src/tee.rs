//! Runs a command, and shows and saves its output.

use std::fs::File;
use std::io::{Read, Write, pipe, stdout};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The output of a command that is saved. The rest is inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Output,
    OutputAndErrors,
}

/// Runs the command, shows its output as it comes, and appends it to the file. Fails if the command does.
pub(crate) fn tee(mut command: Command, kept: Kept, file: &mut File) -> Result<()> {
    let named = format!("{command:?}");
    let (mut reader, writer) = pipe()?;
    if kept == Kept::OutputAndErrors {
        command.stderr(writer.try_clone()?);
    }
    let mut child = command.stdout(writer).spawn().with_context(|| format!("running {named}"))?;
    // The command holds the write end of the pipe, which must be closed for the reader to end.
    drop(command);
    let mut buffer = [0; 8 * 1024];
    loop {
        let length = reader.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        stdout().write_all(bytes)?;
        stdout().flush()?;
        file.write_all(bytes)?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "{named}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(script: &str, kept: Kept) -> Result<(String, Result<()>)> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kept");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let outcome = tee(command, kept, &mut File::create(&path)?);
        Ok((std::fs::read_to_string(path)?, outcome))
    }

    #[test]
    fn what_is_kept_is_kept_also_of_what_fails() -> Result<()> {
        let (text, outcome) = kept("echo one; echo two >&2", Kept::OutputAndErrors)?;
        assert_eq!((text.as_str(), outcome.is_ok()), ("one\ntwo\n", true));
        let (text, outcome) = kept("echo one; echo >&2; exit 3", Kept::Output)?;
        assert_eq!((text.as_str(), outcome.is_ok()), ("one\n", false));
        Ok(())
    }
}
