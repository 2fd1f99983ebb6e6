//! The data directory of `pricing up`: what is in it, what others may not read, its private Redis, and what a
//! start refuses.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use pricing_e2e::{ServiceProcess, eventually};
use serde_json::json;

use crate::command_line::{Engine, PATIENCE};

/// A command that Redis runs while it reads its file, and that takes a tenth of a millisecond. Clients are
/// answered after every 1,024.
const SLOW_COMMAND: &str = "local function now() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end \
     local stop = now() + 100 repeat until now() > stop";
/// How many of them there are: the file takes 15 seconds to read, or longer.
const SLOW_COMMANDS: usize = 150_000;

/// The file to which Redis appends.
fn append_only_file(directory: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(directory.join("redis").join("appendonlydir"))?;
    let mut paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths.find(|path| path.to_string_lossy().ends_with(".incr.aof")).context("no append-only file")
}

/// The exit code and the output of a `pricing up` that ends by itself.
async fn start_that_ends(directory: &Path) -> Result<(i32, String)> {
    let directory = directory.to_str().context("a path of text")?;
    let arguments = ["up", "--listen", "127.0.0.1:0", "--data-dir", directory];
    let mut process = ServiceProcess::start("pricing", &[], &arguments)?;
    let status = process.wait(PATIENCE).await?;
    Ok((status.code().context("it ended by itself")?, process.output()?))
}

/// A directory whose catalogue has one product at 50.00; the engine has stopped.
async fn directory_with_a_product() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let mut engine = Engine::start(directory.path(), &["--no-sample"]).await?;
    let product = json!({"currency": "USD", "base_price": 50});
    let put = engine.client.put("/api/v1/products/P-1", &product).await?;
    ensure!(put.status == 201, "{}", put.text);
    engine.process.terminate(PATIENCE).await?;
    Ok(directory)
}

#[tokio::test]
async fn prices_are_served_while_redis_reads_a_long_file() -> Result<()> {
    let directory = directory_with_a_product().await?;
    let mut file = OpenOptions::new().append(true).open(append_only_file(directory.path())?)?;
    let length = SLOW_COMMAND.len();
    let command = format!("*3\r\n$4\r\nEVAL\r\n${length}\r\n{SLOW_COMMAND}\r\n$1\r\n0\r\n");
    file.write_all(command.repeat(SLOW_COMMANDS).as_bytes())?;

    let engine = Engine::start(directory.path(), &["--no-sample"]).await?;
    let product = json!({"currency": "USD", "base_price": 60});
    let refused = engine.client.put("/api/v1/products/P-1", &product).await?;
    assert_eq!(refused.status, 503, "{}", refused.text);
    ensure!(refused.text.contains("redis still reads its file"), "the reason is missing: {}", refused.text);
    let price = engine.client.price("P-1", "NY", false).await?;
    assert_eq!((price.status.as_u16(), &price.body["final_price"]), (200, &json!(47.5)), "{}", price.text);
    assert_eq!(engine.client.get("/readyz").await?.body["status"], "degraded");
    ensure!(engine.process.output()?.contains("Redis reads its file"), "{}", engine.process.output()?);

    eventually("the change is accepted", PATIENCE, async || {
        let put = engine.client.put("/api/v1/products/P-1", &product).await?;
        ensure!(put.status == 200, "{}", put.text);
        Ok(())
    })
    .await?;
    assert_eq!(engine.client.price("P-1", "NY", false).await?.body["final_price"], json!(57.0));
    eventually("it says that Redis has read its file", PATIENCE, async || {
        let output = engine.process.output()?;
        ensure!(output.contains("Redis has read its file"), "{output}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_redis_that_cannot_read_its_file_ends_the_start() -> Result<()> {
    let directory = directory_with_a_product().await?;
    let file = append_only_file(directory.path())?;
    let text = fs::read(&file)?;
    fs::write(&file, [b"nonsense\r\n".as_slice(), &text].concat())?;
    let (code, said) = start_that_ends(directory.path()).await?;
    ensure!(
        code == 1 && said.contains("redis-server ended at once") && said.contains("Bad file format"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn other_users_of_the_machine_reach_neither_files_nor_redis() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // So long that it cannot hold a socket.
    let long = directory.path().join("d".repeat(110));
    fs::create_dir(&long)?;
    fs::set_permissions(&long, fs::Permissions::from_mode(0o755))?;
    for data in [directory.path().join("data"), long] {
        let engine = Engine::start(&data, &["--no-sample"]).await?;
        let put =
            engine.client.put("/api/v1/products/P-1", &json!({"currency": "USD", "base_price": 10})).await?;
        assert_eq!(put.status, 201, "{}", put.text);
        let mut folders = vec![data.clone()];
        while let Some(folder) = folders.pop() {
            check_private(&folder)?;
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                check_private(&path)?;
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        let socket = PathBuf::from(fs::read_to_string(data.join("redis").join("socket"))?);
        check_private(&socket)?;
        check_private(socket.parent().context("a directory")?)?;
        let is_elsewhere = !socket.starts_with(&data);
        assert_eq!(is_elsewhere, engine.process.output()?.contains("cannot hold one"));
        let output = engine.process.output()?;
        ensure!(output.contains("redis+unix://") && !output.contains("redis://"), "{output}");
    }
    Ok(())
}

fn check_private(path: &Path) -> Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
    Ok(())
}

#[tokio::test]
async fn a_catalogue_that_has_vanished_or_is_damaged_does_not_become_a_sample_shop() -> Result<()> {
    let directory = directory_with_a_product().await?;
    let (catalogue, aside) = (directory.path().join("catalogue.db"), directory.path().join("aside"));
    fs::rename(&catalogue, &aside)?;
    let (code, said) = start_that_ends(directory.path()).await?;
    ensure!(code == 1 && said.contains("is missing") && said.contains("pricing restore"), "{said}");
    fs::write(&catalogue, "")?;
    let (code, said) = start_that_ends(directory.path()).await?;
    ensure!(code == 1 && said.contains("is empty") && said.contains("pricing restore"), "{said}");
    fs::write(&catalogue, "nonsense ".repeat(10_000))?;
    let (code, said) = start_that_ends(directory.path()).await?;
    ensure!(code == 1 && said.contains("is damaged") && said.contains("pricing restore"), "{said}");

    fs::rename(&aside, &catalogue)?;
    let mut engine = Engine::start(directory.path(), &[]).await?;
    assert_eq!(engine.client.price("P-1", "NY", false).await?.body["final_price"], json!(47.5));
    assert_eq!(engine.client.price("P-100", "NY", false).await?.status, 404, "the sample was loaded");
    ensure!(!engine.process.output()?.contains("gone"), "{}", engine.process.output()?);
    engine.process.terminate(PATIENCE).await?;

    fs::remove_dir_all(directory.path().join("redis"))?;
    let other = directory_with_a_product().await?;
    fs::copy(other.path().join("catalogue.db"), &catalogue)?;
    let engine = Engine::start(directory.path(), &[]).await?;
    let output = engine.process.output()?;
    ensure!(output.contains("another catalogue than at the last start"), "{output}");
    ensure!(output.contains("is gone") && output.contains("events"), "{output}");
    Ok(())
}
