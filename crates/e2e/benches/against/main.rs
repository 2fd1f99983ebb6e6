//! Compares two builds of the engine: what `./dev bench against REV` prints.
//!
//! `cargo bench -p pricing-e2e --bench against -- BEFORE AFTER` takes two directories with `pricing-api`,
//! `pricing-worker` and `pricing-listener` in them, starts a Redis, a database and the services for each
//! ([`side`]), and gives both the same work in turns, with the order swapped in every second round: answer
//! prices to `wrk`, import products whose rows all changed, recalculate all prices. At the end it measures
//! how much each stores. A row has the medians and the median of the rounds' ratios, with the lowest and the
//! highest: where these lie on both sides of 1, the difference is noise.
//!
//! `--rounds N` (a result to quote needs at least 5), `--products N`, `--connections N` of `wrk`, `--database
//! sqlite|postgres`.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::indexing_slicing, reason = "where one of these panics, the measurement has failed")]
#![expect(clippy::float_arithmetic, reason = "these are measurements, not prices")]

mod side;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use side::{Database, Load, Side};
use table::{Better, Row};

const USAGE: &str = "BEFORE AFTER [--rounds N] [--products N] [--connections N] [--database sqlite|postgres]";

struct Arguments {
    directories: [PathBuf; 2],
    rounds: usize,
    products: usize,
    connections: usize,
    database: Database,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let [before, after] = &arguments.directories;
    let mut sides = [
        Side::start(before, arguments.products, arguments.database).await?,
        Side::start(after, arguments.products, arguments.database).await?,
    ];
    let mut rows = Vec::new();
    for load in Load::ALL {
        let (mut rate, mut p99) = (
            Row::new(load.name(), "requests/s", Better::More),
            Row::new(load.name(), "p99 µs", Better::Less),
        );
        for round in 0..arguments.rounds {
            let [before, after] =
                in_turns(round, &mut sides, async |side| side.answer(load, arguments.connections).await)
                    .await?;
            rate.push(before.rate(), after.rate());
            p99.push(before.p99_us, after.p99_us);
        }
        rows.extend([rate, p99]);
    }
    let mut import = Row::new("import, every row changed", "ms", Better::Less);
    let mut recalculation = Row::new("recalculation", "ms", Better::Less);
    for round in 0..arguments.rounds {
        let [before, after] = in_turns(round, &mut sides, async |side| side.import(round + 1).await).await?;
        import.push(before, after);
        let [before, after] =
            in_turns(round, &mut sides, async |side| side.recalculate(round + 1).await).await?;
        recalculation.push(before, after);
    }
    rows.extend([import, recalculation]);
    let [before, after] = in_turns(0, &mut sides, async |side| side.stored().await).await?;
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        let mut row = Row::new(name, "bytes a product", Better::Less);
        row.push(before, after);
        rows.push(row);
    }
    table::print(&rows, arguments.products, arguments.rounds);
    Ok(())
}

/// Runs it on both sides, one after the other; returns the results, the side before first.
async fn in_turns<T>(
    round: usize,
    sides: &mut [Side; 2],
    work: impl AsyncFn(&mut Side) -> Result<T>,
) -> Result<[T; 2]> {
    let [before, after] = sides;
    if round.is_multiple_of(2) {
        let result = work(before).await?;
        Ok([result, work(after).await?])
    } else {
        let result = work(after).await?;
        Ok([work(before).await?, result])
    }
}

impl Arguments {
    fn parse(given: impl Iterator<Item = String>) -> Result<Self> {
        let (mut directories, mut rounds, mut products, mut connections) = (Vec::new(), 5, 10_000, 64);
        let mut database = Database::Sqlite;
        // Cargo adds --bench.
        let mut given = given.filter(|argument| argument != "--bench");
        while let Some(argument) = given.next() {
            let mut value = || given.next().with_context(|| format!("{argument} takes a value: {USAGE}"));
            match argument.as_str() {
                "--rounds" => rounds = value()?.parse()?,
                "--products" => products = value()?.parse()?,
                "--connections" => connections = value()?.parse()?,
                "--database" => database = value()?.parse()?,
                option if option.starts_with('-') => bail!("unknown option {option}: {USAGE}"),
                directory => directories.push(PathBuf::from(directory)),
            }
        }
        let Ok(directories) = directories.try_into() else { bail!("two directories are needed: {USAGE}") };
        Ok(Self { directories, rounds, products, connections, database })
    }
}
