#!/usr/bin/env bash
# redis 1.8.1 (cluster-async): a command that got no answer in time is sent again, and executed again, when
# another command comes.
#
# The guess was that a ClusterConnection ends a command with an error when its response timeout is over, as a
# MultiplexedConnection of the same crate does: the server may have executed it, and INCR is not to be
# repeated by itself. But the cluster's connection means to send it again, by default up to 16 times, while
# the server still works on the first one. With an `overall_response_timeout` above the response timeout, the
# repetition then waits until the connection is used for something else: alone, the command fails only after
# the overall timeout, although the server has answered long before; with another command meanwhile, it is
# executed again. `retries(0)` prevents both, and also that MOVED is followed.
#
# Needs cargo and redis-server 7. Seen with redis 1.8.1 and Redis 7.0.15, a script that takes 0.3 s, a
# response timeout of 0.1 s and an overall one of 2 s:
#
#     one connection: timed out after the response timeout, executed once
#     cluster connection, another command meanwhile: timed out after the overall timeout, executed more than
#     once
#     cluster connection alone: timed out after the overall timeout, executed once
#     cluster connection without retries: timed out after the response timeout, executed once
#
# Ends with an error if that has changed.
set -euo pipefail

directory=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$directory"' EXIT
cd "$directory"

port=$((20000 + RANDOM % 10000))
redis-server --port "$port" --bind 127.0.0.1 --cluster-enabled yes --cluster-port "$((port + 10000))" \
    --save "" --dir "$directory" >server.log &
server=$!
until redis-cli -p "$port" ping >answer 2>&1 && grep -q PONG answer; do sleep 0.1; done
redis-cli -p "$port" cluster addslotsrange 0 16383 >answer
until redis-cli -p "$port" cluster info | grep -q cluster_state:ok; do sleep 0.1; done

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "repeats"
version = "0.0.0"
edition = "2021"

[dependencies]
redis = { version = "=1.8.1", default-features = false, features = ["cluster-async", "tokio-comp", "script"] }
tokio = { version = "1", features = ["full"] }

[workspace]
TOML
cat >src/main.rs <<'RUST'
use std::time::{Duration, Instant};

use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;

const SLOW: &str = "redis.call('INCR', KEYS[1]); local t = redis.call('TIME'); \
    local until_us = t[1] * 1000000 + t[2] + 300000; \
    repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > until_us; return 1";
const TIMEOUT: Duration = Duration::from_millis(100);

async fn call(mut connection: impl ConnectionLike, key: &str) -> &'static str {
    let started = Instant::now();
    let answer = redis::cmd("EVAL").arg(SLOW).arg(1).arg(key).query_async::<i64>(&mut connection).await;
    match answer {
        Err(error) if !error.is_timeout() => "failed",
        Ok(_) => "answered",
        Err(_) if started.elapsed() < Duration::from_secs(1) => "timed out after the response timeout",
        Err(_) => "timed out after the overall timeout",
    }
}

#[tokio::main]
async fn main() -> redis::RedisResult<()> {
    let url = std::env::args().nth(1).unwrap();
    let client = redis::Client::open(url.as_str())?;
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
    let one = client.get_multiplexed_async_connection_with_config(&config).await?;
    let cluster = || {
        ClusterClient::builder([url.as_str()])
            .response_timeout(TIMEOUT)
            .overall_response_timeout(Some(Duration::from_secs(2)))
    };
    let repeating = cluster().build()?.get_async_connection().await?;
    let careful = cluster().retries(0).build()?.get_async_connection().await?;
    let mut results = Vec::new();
    results.push(("one connection", call(one, "a").await, "a"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut another = repeating.clone();
    let (ended, _) = tokio::join!(call(repeating.clone(), "b"), async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        redis::cmd("GET").arg("x").query_async::<Option<String>>(&mut another).await
    });
    results.push(("cluster connection, another command meanwhile", ended, "b"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    results.push(("cluster connection alone", call(repeating, "d").await, "d"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    results.push(("cluster connection without retries", call(careful, "c").await, "c"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut check = client.get_multiplexed_async_connection().await?;
    for (what, ended, key) in results {
        let count: i64 = redis::cmd("GET").arg(key).query_async(&mut check).await?;
        println!("{what}: {ended}, executed {}", if count == 1 { "once" } else { "more than once" });
    }
    Ok(())
}
RUST
CARGO_TARGET_DIR=$directory/target cargo run --quiet -- "redis://127.0.0.1:$port" | tee output

diff output - <<'EXPECTED'
one connection: timed out after the response timeout, executed once
cluster connection, another command meanwhile: timed out after the overall timeout, executed more than once
cluster connection alone: timed out after the overall timeout, executed once
cluster connection without retries: timed out after the response timeout, executed once
EXPECTED
echo "as seen"
