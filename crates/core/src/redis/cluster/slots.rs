//! The slot of a key, and of a command's first key.
//!
//! A key's slot is the CRC-16 (XMODEM) of the key, or of what is between its first `{` and the next `}` if
//! there is anything, modulo 16384:
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use redis::{Arg, Cmd};

/// The slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;
const POLYNOMIAL: u16 = 0x1021;

/// Where a command belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// To the master of this slot. A command without a key belongs to the first one, so that all processes
    /// ask the same master for the time.
    Slot(u16),
    /// To each master: a script may be called at any.
    EachMaster,
}

/// The slot of a key.
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    let mut checksum: u16 = 0;
    for byte in tag(key) {
        checksum ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            let is_carried = checksum & 0x8000 != 0;
            checksum <<= 1;
            if is_carried {
                checksum ^= POLYNOMIAL;
            }
        }
    }
    checksum % SLOTS
}

/// The part of a key that decides on its slot.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let after = key.get(open + 1..).unwrap_or_default();
    match after.iter().position(|byte| *byte == b'}') {
        Some(end) if end > 0 => after.get(..end).unwrap_or(key),
        _ => key,
    }
}

/// Where a command of the engine, or of its queue library, belongs.
pub(super) fn route(command: &Cmd) -> Route {
    let name = word(command, 0).to_ascii_uppercase();
    let key = match name.as_slice() {
        b"SCRIPT" => return Route::EachMaster,
        b"PING" | b"TIME" | b"INFO" | b"CLIENT" | b"CONFIG" | b"CLUSTER" | b"DBSIZE" | b"KEYS" => None,
        b"EVAL" | b"EVALSHA" if word(command, 2) == b"0" => None,
        b"EVAL" | b"EVALSHA" => Some(3),
        b"XGROUP" | b"XINFO" | b"OBJECT" | b"MEMORY" => Some(2),
        b"XREAD" | b"XREADGROUP" => after_streams(command),
        _ => Some(1),
    };
    Route::Slot(key.map_or(0, |place| slot_of(word(command, place))))
}

fn word(command: &Cmd, place: usize) -> &[u8] {
    match command.args_iter().nth(place) {
        Some(Arg::Simple(word)) => word,
        _ => b"",
    }
}

fn after_streams(command: &Cmd) -> Option<usize> {
    let mut words = command.args_iter();
    let streams = words.position(|word| matches!(word, Arg::Simple(b"STREAMS")))?;
    Some(streams + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots as `CLUSTER KEYSLOT` of Redis 7.0.15 gives them.
    #[test]
    fn a_key_has_the_slot_that_redis_gives_it() {
        for (key, slot) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("{core:apalis:queues:list}:pricing:v1:jobs:active", 2_813),
            ("core:apalis:queues:list", 2_813),
            ("a{foo}b", 12_182),
            ("{}foo", slot_of(b"{}foo")),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_ne!(slot_of(b"{}foo"), slot_of(b"{}bar"), "an empty tag is none");
        assert_eq!(slot_of(b"x{a}{b}"), slot_of(b"a"), "the first tag counts");
    }

    #[test]
    fn a_command_belongs_to_the_slot_of_its_first_key() {
        for (words, key) in [
            (&["GET", "k"] as &[&str], "k"),
            (&["evalsha", "0f", "2", "k", "l", "x"], "k"),
            (&["XGROUP", "CREATE", "k", "g", "0"], "k"),
            (&["XINFO", "GROUPS", "k"], "k"),
            (&["XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", "k", ">"], "k"),
            (&["PUBLISH", "k", "message"], "k"),
            (&["XACK", "k", "g", "1-1"], "k"),
        ] {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            assert_eq!(route(&command), Route::Slot(slot_of(key.as_bytes())), "{words:?}");
        }
        for words in [&["TIME"] as &[&str], &["EVALSHA", "0f", "0", "x"], &["PING"]] {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            assert_eq!(route(&command), Route::Slot(0), "{words:?}");
        }
        assert_eq!(route(redis::cmd("SCRIPT").arg("LOAD").arg("return 1")), Route::EachMaster);
    }
}
