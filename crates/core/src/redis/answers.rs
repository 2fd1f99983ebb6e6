//! What the answers of a server say about it.
//!
//! Below the client's `query_async`, where connections are shared and measured, a server's error is a value
//! of its own kind and not an `Err`, in pipelines too.

use redis::{ServerError, Value};

/// What a server's error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The server is not the master, or not any more: another one is to be found.
    NotMaster,
    /// The server is starting; if it takes long, another one may be the master.
    Starting,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether any command failed.
    pub(super) is_failure: bool,
    /// What asks for another connection.
    pub(super) refusal: Option<Refusal>,
}

/// Looks at the answer to a command.
pub(super) fn of_command(answer: &redis::RedisResult<Value>) -> Seen {
    match answer {
        Ok(value) => of_value(value),
        Err(error) => of_error(error),
    }
}

/// Looks at the answers to a pipeline.
pub(super) fn of_pipeline(answers: &redis::RedisResult<Vec<Value>>) -> Seen {
    match answers {
        Ok(values) => values.iter().fold(Seen::default(), |seen, value| seen.and(of_value(value))),
        Err(error) => of_error(error),
    }
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self { is_failure: self.is_failure || other.is_failure, refusal: self.refusal.or(other.refusal) }
    }
}

fn of_value(value: &Value) -> Seen {
    match value {
        Value::ServerError(error) => of_server_error(error),
        _ => Seen::default(),
    }
}

fn of_error(error: &redis::RedisError) -> Seen {
    let code = error.code();
    Seen { is_failure: !code.is_some_and(is_expected), refusal: code.and_then(refusal) }
}

fn of_server_error(error: &ServerError) -> Seen {
    Seen { is_failure: !is_expected(error.code()), refusal: refusal(error.code()) }
}

/// Two errors are no failures: a script that the server has not loaded yet, and a consumer group that exists
/// already.
fn is_expected(code: &str) -> bool {
    matches!(code, "NOSCRIPT" | "BUSYGROUP")
}

fn refusal(code: &str) -> Option<Refusal> {
    match code {
        // UNBLOCKED ends a blocking command when its server becomes a replica.
        "READONLY" | "UNBLOCKED" | "MASTERDOWN" => Some(Refusal::NotMaster),
        "LOADING" => Some(Refusal::Starting),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value that the client makes of an error of the server.
    fn refused(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_servers_error_is_a_failure_unless_it_is_expected() {
        for (line, is_failure, refusal) in [
            ("READONLY You can't write against a read only replica.", true, Some(Refusal::NotMaster)),
            ("UNBLOCKED force unblock from blocking operation", true, Some(Refusal::NotMaster)),
            ("MASTERDOWN Link with MASTER is down", true, Some(Refusal::NotMaster)),
            ("LOADING Redis is loading the dataset in memory", true, Some(Refusal::Starting)),
            ("OOM command not allowed when used memory > 'maxmemory'.", true, None),
            ("NOPERM this user has no permissions", true, None),
            ("MOVED 3999 127.0.0.1:6381", true, None),
            ("NOSCRIPT No matching script.", false, None),
            ("BUSYGROUP Consumer Group name already exists", false, None),
        ] {
            let expected = Seen { is_failure, refusal };
            assert_eq!(of_command(&Ok(refused(line))), expected, "{line}");
            assert_eq!(of_pipeline(&Ok(vec![Value::Okay, refused(line), Value::Nil])), expected, "{line}");
        }
        assert_eq!(of_command(&Ok(Value::Nil)), Seen::default());
        assert_eq!(of_pipeline(&Ok(Vec::new())), Seen::default());
        let broken = redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(of_command(&Err(broken)).is_failure);
    }
}
