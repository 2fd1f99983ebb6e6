//! Compares two ways to do the same: they take turns in every round, and the times are medians of the rounds,
//! so the ratios mean something on any machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 301;
/// How long each of a pair works in a round, about: too short to be interrupted in most rounds.
const TURN: Duration = Duration::from_micros(200);

/// Measures a pair and prints its row.
pub(crate) fn compare<A, B>(ours: &(&str, impl Fn() -> A), beside: &(&str, impl Fn() -> B), goal: &str) {
    let (our_calls, their_calls) = (calls_in_a_turn(&ours.1), calls_in_a_turn(&beside.1));
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_times.push(picoseconds(&ours.1, our_calls));
        their_times.push(picoseconds(&beside.1, their_calls));
    }
    let (ours_ps, beside_ps) = (median(our_times), median(their_times));
    let hundredths = ours_ps * 100 / beside_ps.max(1);
    let times = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    println!("| {} | {} | {} | {} | {times} | {goal} |", ours.0, shown(ours_ps), beside.0, shown(beside_ps));
}

fn calls_in_a_turn<T>(work: &impl Fn() -> T) -> u32 {
    let mut calls = 1;
    // Other programs make a try longer, never shorter.
    while (0..5).any(|_| duration(work, calls) < TURN) {
        calls *= 2;
    }
    calls
}

fn picoseconds<T>(work: &impl Fn() -> T, calls: u32) -> u128 {
    duration(work, calls).as_nanos() * 1_000 / u128::from(calls)
}

#[inline(never)]
fn duration<T>(work: &impl Fn() -> T, calls: u32) -> Duration {
    let started = Instant::now();
    for _ in 0..calls {
        black_box(work());
    }
    started.elapsed()
}

fn median(mut values: Vec<u128>) -> u128 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn shown(picoseconds: u128) -> String {
    if picoseconds < 1_000_000 {
        format!("{} ns", picoseconds / 1_000)
    } else {
        format!("{}.{:02} µs", picoseconds / 1_000_000, picoseconds / 10_000 % 100)
    }
}
