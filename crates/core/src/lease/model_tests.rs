//! A model of lease and fencing together, run on thousands of random schedules.
//!
//! Coordinators take the lease, begin a run in the database, and write its ranges. Messages are delayed,
//! clocks run up to a twentieth too fast or too slow, processes are paused for longer than a lease lasts, and
//! Redis loses its data. Two properties must hold: once a run has begun, no write of an earlier run takes
//! effect, so that two full runs never overlap in effect; and runs do begin. The rules by which a coordinator
//! trusts its lease are those of the real code.

use std::collections::BTreeMap;

use super::*;

const COORDINATORS: usize = 4;
const TTL: Duration = Duration::from_millis(500);
const RANGES: u32 = 8;
const STEPS_MS: u64 = 20_000;
const SCHEDULES: u64 = 2_000;

/// A message in flight, or a timer.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A coordinator takes its next step.
    Wake(usize),
    /// A request of a coordinator reaches Redis.
    Acquire {
        by: usize,
        sent_at_ms: u64,
        last_number: i64,
    },
    Renew {
        by: usize,
        token: i64,
        sent_at_ms: u64,
    },
    Release {
        by: usize,
        token: i64,
    },
    /// Redis' answer reaches the coordinator.
    Acquired {
        by: usize,
        token: i64,
        sent_at_ms: u64,
    },
    Renewed {
        by: usize,
        held: bool,
        sent_at_ms: u64,
    },
    /// A transaction of a coordinator, or of a range it has enqueued, reaches the database.
    Begin {
        by: usize,
        number: i64,
    },
    Write {
        number: i64,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct Coordinator {
    /// The rate of its clock, in thousandths.
    clock_rate: u64,
    paused_until_ms: u64,
    token: i64,
    /// The end of its lease, by its own clock.
    valid_until_ms: u64,
    next_renewal_ms: u64,
    has_begun: bool,
    ranges_left: u32,
    waits_for_answer_until_ms: u64,
}

struct World {
    random: fastrand::Rng,
    now_ms: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    coordinators: [Coordinator; COORDINATORS],
    // Redis
    lease: Option<(usize, i64, u64)>,
    last_token: i64,
    // The database
    current_run: i64,
    with_fence: bool,
    // What happened
    begun: u32,
    late_writes: u32,
}

impl World {
    fn new(seed: u64, with_fence: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let coordinators = std::array::from_fn(|_| Coordinator {
            clock_rate: random.u64(950..=1_050),
            ..Default::default()
        });
        let mut world = Self {
            random,
            now_ms: 0,
            agenda: BTreeMap::new(),
            sequence: 0,
            coordinators,
            lease: None,
            last_token: 0,
            current_run: 0,
            with_fence,
            begun: 0,
            late_writes: 0,
        };
        for by in 0..COORDINATORS {
            world.schedule(by as u64 * 7, Event::Wake(by));
        }
        world
    }

    fn schedule(&mut self, after_ms: u64, event: Event) {
        self.sequence += 1;
        self.agenda.insert((self.now_ms + after_ms, self.sequence), event);
    }

    /// Sends a message, occasionally with a long delay.
    fn send(&mut self, event: Event) {
        let delay_ms =
            if self.random.u8(0..50) == 0 { self.random.u64(0..2_000) } else { self.random.u64(0..10) };
        self.schedule(delay_ms, event);
    }

    /// The reading of a coordinator's clock.
    fn local_ms(&self, by: usize) -> u64 {
        self.now_ms * self.coordinators[by].clock_rate / 1_000
    }

    fn run(mut self) -> Self {
        while let Some(((at_ms, sequence), event)) = self.agenda.pop_first() {
            if at_ms > STEPS_MS {
                break;
            }
            self.now_ms = at_ms;
            if self.random.u32(0..20_000) == 0 {
                // Redis loses all of its data.
                (self.lease, self.last_token) = (None, 0);
            }
            let paused_until_ms = match event {
                Event::Wake(by) | Event::Acquired { by, .. } | Event::Renewed { by, .. } => {
                    self.coordinators[by].paused_until_ms
                }
                _ => 0,
            };
            if paused_until_ms > at_ms {
                self.agenda.insert((paused_until_ms, sequence), event);
            } else {
                self.happen(event);
            }
        }
        self
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(by) => self.wake(by),
            Event::Acquire { by, sent_at_ms, last_number } => {
                let held = self.lease.is_some_and(|(_, _, expires_at_ms)| expires_at_ms > self.now_ms);
                let token = if held { 0 } else { (self.last_token + 1).max(last_number + 1) };
                if token > 0 {
                    self.last_token = token;
                    self.lease = Some((by, token, self.now_ms + ttl_ms()));
                }
                self.send(Event::Acquired { by, token, sent_at_ms });
            }
            Event::Renew { by, token, sent_at_ms } => {
                let held = self.is_held_by(by, token);
                if held {
                    self.lease = Some((by, token, self.now_ms + ttl_ms()));
                }
                self.send(Event::Renewed { by, held, sent_at_ms });
            }
            Event::Release { by, token } => {
                if self.is_held_by(by, token) {
                    self.lease = None;
                }
            }
            Event::Acquired { by, token, sent_at_ms } => self.acquired(by, token, sent_at_ms),
            Event::Renewed { by, held, sent_at_ms } => {
                let valid_until_ms = if held { trusted_until_ms(sent_at_ms) } else { 0 };
                let local_ms = self.local_ms(by);
                let coordinator = &mut self.coordinators[by];
                coordinator.valid_until_ms = valid_until_ms;
                coordinator.next_renewal_ms = local_ms + pause_ms(local_ms, valid_until_ms);
            }
            Event::Begin { by, number } => {
                if number > self.current_run || !self.with_fence {
                    self.current_run = number;
                    self.begun += 1;
                    self.coordinators[by].has_begun = true;
                }
            }
            Event::Write { number } => {
                let takes_effect = !self.with_fence || number == self.current_run;
                if takes_effect && number < self.current_run {
                    self.late_writes += 1;
                }
            }
        }
    }

    fn is_held_by(&self, by: usize, token: i64) -> bool {
        self.lease.is_some_and(|(owner, held, expires_at_ms)| {
            (owner, held) == (by, token) && expires_at_ms > self.now_ms
        })
    }

    fn acquired(&mut self, by: usize, token: i64, sent_at_ms: u64) {
        let local_ms = self.local_ms(by);
        let coordinator = &mut self.coordinators[by];
        coordinator.waits_for_answer_until_ms = 0;
        if token == 0 {
            return;
        }
        let valid_until_ms = trusted_until_ms(sent_at_ms);
        coordinator.token = token;
        coordinator.valid_until_ms = valid_until_ms;
        coordinator.next_renewal_ms = local_ms + pause_ms(local_ms, valid_until_ms);
        coordinator.has_begun = false;
        coordinator.ranges_left = RANGES;
        self.send(Event::Begin { by, number: token });
    }

    /// A coordinator's next step. Between its reading of the clock and the effect of the step, anything may
    /// happen.
    fn wake(&mut self, by: usize) {
        let local_ms = self.local_ms(by);
        let coordinator = self.coordinators[by];
        if coordinator.token > 0 && local_ms >= coordinator.valid_until_ms {
            self.coordinators[by].token = 0;
        } else if coordinator.token > 0 {
            if local_ms >= coordinator.next_renewal_ms {
                self.coordinators[by].next_renewal_ms = u64::MAX;
                self.send(Event::Renew { by, token: coordinator.token, sent_at_ms: local_ms });
            }
            if coordinator.has_begun && coordinator.ranges_left > 0 {
                self.coordinators[by].ranges_left -= 1;
                self.send(Event::Write { number: coordinator.token });
            } else if coordinator.has_begun {
                self.send(Event::Release { by, token: coordinator.token });
                self.coordinators[by].token = 0;
            }
        } else if local_ms >= coordinator.waits_for_answer_until_ms {
            self.coordinators[by].waits_for_answer_until_ms = local_ms + 3_000;
            let last_number = self.current_run;
            self.send(Event::Acquire { by, sent_at_ms: local_ms, last_number });
        }
        if self.random.u8(0..100) == 0 {
            self.coordinators[by].paused_until_ms = self.now_ms + self.random.u64(0..1_500);
        }
        let next_ms = self.random.u64(5..60);
        self.schedule(next_ms, Event::Wake(by));
    }
}

fn ttl_ms() -> u64 {
    milliseconds(TTL)
}

/// The real code's rule, on the model's clock.
fn trusted_until_ms(sent_at_ms: u64) -> u64 {
    let origin = Instant::now();
    milliseconds(valid_until(origin + Duration::from_millis(sent_at_ms), TTL) - origin)
}

fn pause_ms(local_ms: u64, valid_until_ms: u64) -> u64 {
    let origin = Instant::now();
    let at = |ms: u64| origin + Duration::from_millis(ms);
    milliseconds(renewal_pause(at(local_ms), at(valid_until_ms), TTL))
}

#[test]
fn no_write_of_an_earlier_run_takes_effect_once_a_later_one_has_begun() {
    let mut begun = 0;
    for seed in 0..SCHEDULES {
        let world = World::new(seed, true).run();
        assert_eq!(world.late_writes, 0, "seed {seed}");
        assert!(world.begun > 0, "no run ever began with seed {seed}");
        begun += world.begun;
    }
    assert!(begun > 10_000, "only {begun} runs in all");
}

#[test]
fn without_fencing_the_lease_alone_lets_runs_overlap() {
    let late_writes: u32 = (0..SCHEDULES).map(|seed| World::new(seed, false).run().late_writes).sum();
    assert!(late_writes > 0, "the model does not try hard enough");
}
