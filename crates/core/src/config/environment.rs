//! Reads variables from the environment and collects every problem, so that all are reported at once.

use std::fmt;
use std::str::FromStr;

use super::variable::{Allowed, Variable};

/// A variable with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The variable's name.
    pub variable: &'static str,
    /// Its value, unless that may contain a password.
    pub value: String,
    /// The values it accepts.
    pub allowed: String,
}

/// All problems of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<ConfigProblem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the configuration cannot be used:")?;
        for ConfigProblem { variable, value, allowed } in &self.0 {
            write!(formatter, "\n  {variable}=\"{value}\": must be {allowed}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads variables by their row in a table. A read returns `None` if the value is invalid;
/// [`finish`](Self::finish) then returns every problem.
pub struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<ConfigProblem>,
}

impl<'a> Environment<'a> {
    /// Creates a reader that uses this function: a map in tests,
    /// [`process_environment`](super::process_environment) in services.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// Reads a variable, or its default; an empty value counts as unset.
    pub fn read<T: FromStr>(&mut self, variable: &Variable) -> Option<T> {
        self.read_with(variable, variable.default, &variable.allowed)
    }

    /// Like [`read`](Self::read), for a default or bounds that depend on other variables.
    pub fn read_with<T: FromStr>(
        &mut self,
        variable: &Variable,
        default: &str,
        allowed: &Allowed,
    ) -> Option<T> {
        let value = self.value(variable).unwrap_or_else(|| default.to_owned());
        let checked = allowed.accepts(&value).then(|| value.parse().ok()).flatten();
        if checked.is_none() {
            self.refuse(variable, value, allowed.to_string());
        }
        checked
    }

    /// Refuses a value for a reason that the table does not know; `allowed` completes "must be".
    pub fn refuse(&mut self, variable: &Variable, value: String, allowed: String) {
        if self.problems.iter().any(|problem| problem.variable == variable.name) {
            return;
        }
        let value = if variable.is_secret { "…".to_owned() } else { value };
        self.problems.push(ConfigProblem { variable: variable.name, value, allowed });
    }

    /// Reads a variable without a default.
    pub fn optional(&self, variable: &Variable) -> Option<String> {
        self.value(variable)
    }

    /// Returns the configuration, or all problems if there were any.
    pub fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        config.filter(|_| self.problems.is_empty()).ok_or(ConfigError(self.problems))
    }

    /// Returns the raw value, trimmed except for free text.
    fn value(&self, variable: &Variable) -> Option<String> {
        let value = (self.lookup)(variable.name).filter(|value| !value.is_empty())?;
        let is_text = matches!(variable.allowed, Allowed::Text(_));
        Some(if is_text { value } else { value.trim().to_owned() })
    }
}
