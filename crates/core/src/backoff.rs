//! Exponential back-off: pauses between attempts that double up to a bound.

use std::time::Duration;

/// The pauses of one sequence of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from the shortest to the longest.
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The next pause. Each is twice as long as the one before, up to the longest.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    /// Restarts with the shortest pause, after a successful attempt.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }

    /// Whether no pause was taken since the start or the last reset.
    pub fn is_fresh(&self) -> bool {
        self.next == self.shortest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        assert!(backoff.is_fresh());
        let pauses: Vec<u128> = (0..4).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 350, 350]);
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert_eq!((backoff.is_fresh(), backoff.pause().as_millis()), (true, 100));
    }
}
