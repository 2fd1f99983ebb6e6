//! The account that PostgreSQL runs under when the tests run as root, which it refuses.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use anyhow::{Context, Result};

const ROOT: u32 = 0;

/// An unprivileged user of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user_id: u32,
    pub(crate) group_id: u32,
}

impl Account {
    /// Gives `directory`, which this process has just created, to an unprivileged account when this process
    /// is root. `None` means that servers may run as the current user.
    pub(crate) fn unprivileged_owner_of(directory: &Path) -> Result<Option<Self>> {
        // A directory belongs to the user that created it, so its owner is our effective user.
        if fs::metadata(directory)?.uid() != ROOT {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
        let account = find(&accounts, "postgres")
            .or_else(|| find(&accounts, "nobody"))
            .context("postgresql refuses to run as root, and there is no user `postgres` or `nobody`")?;
        chown(directory, Some(account.user_id), Some(account.group_id))?;
        Ok(Some(account))
    }
}

/// Reads one line of passwd(5): `name:password:user id:group id:…`.
fn find(accounts: &str, name: &str) -> Option<Account> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let user_id = fields.nth(1)?.parse().ok()?;
        let group_id = fields.next()?.parse().ok()?;
        Some(Account { user_id, group_id })
    })
}

#[cfg(test)]
mod tests {
    use super::{Account, find};

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts = "postgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:PostgreSQL:/var:/bin/sh\n";
        assert_eq!(find(accounts, "postgres"), Some(Account { user_id: 101, group_id: 104 }));
        assert_eq!(find(accounts, "nobody"), None);
    }
}
