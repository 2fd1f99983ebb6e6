//! The least that the engine may do in Redis, as docs/operations.md says it.

use anyhow::{Context, Result};

const DOCUMENT: &str = include_str!("../../../docs/operations.md");
/// Runs every Redis of the tests with the documented user, if it is set to 1.
const VARIABLE: &str = "E2E_REDIS_ACL";
/// The placeholder of the document, and what the tests put in its place.
const PLACEHOLDER: &str = ">PASSWORD";
const PASSWORD: &str = "p@ss:1";
/// The prefixes that tests use besides the default one, whose names the document spells out.
const TEST_PREFIXES: [&str; 6] = ["oldest:", "held:", "sqlite:", "postgres:", "test:", "shop1:"];

/// The name and the password of the documented users, as part of a URL.
pub(crate) const LOGIN: &str = "pricing:p%40ss%3A1";

/// The line of the configuration that makes the user of a documented line, `user NAME …`, with the tests'
/// password.
fn documented(name: &str) -> Result<String> {
    let start = format!("user {name} ");
    let line = DOCUMENT.lines().find(|line| line.starts_with(&start));
    let line = line.with_context(|| format!("docs/operations.md has no line \"{start}…\""))?;
    Ok(line.replace(PLACEHOLDER, &format!(">{PASSWORD}")))
}

/// The users of a server's ACL file: the documented one, and one for the tests' own administration.
pub(crate) fn users_of_server() -> Result<String> {
    let mut pricing = documented("pricing")?;
    if is_wanted_everywhere() {
        for prefix in TEST_PREFIXES {
            pricing.push_str(&format!(" ~{prefix}* ~{{{prefix}price_changes:log}}:bytes &{prefix}*"));
        }
    }
    Ok(format!("user default on nopass ~* &* +@all\n{pricing}\n"))
}

/// The documented user of a Sentinel: a line of its configuration.
pub fn user_of_sentinel() -> Result<String> {
    documented("pricing-sentinel")
}

/// Whether every Redis of the tests has the documented user.
pub(crate) fn is_wanted_everywhere() -> bool {
    std::env::var(VARIABLE).is_ok_and(|value| value == "1")
}
