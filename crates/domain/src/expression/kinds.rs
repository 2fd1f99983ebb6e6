//! The kinds of values that a part of an expression can have, known before evaluation.

use std::fmt;

/// A set of kinds. The empty set means that a fault was already reported and suppresses further ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// The empty set: unknown because of a fault.
    pub const NONE: Self = Self(0);
    /// Null: an unknown fact, or no value.
    pub const NULL: Self = Self(1);
    /// True or false.
    pub const BOOL: Self = Self(2);
    /// A number.
    pub const NUMBER: Self = Self(4);
    /// A text.
    pub const TEXT: Self = Self(8);

    /// The union of both sets.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set with null.
    pub const fn or_null(self) -> Self {
        self.or(Self::NULL)
    }

    /// The set without null.
    pub const fn known(self) -> Self {
        Self(self.0 & !Self::NULL.0)
    }

    /// Whether the value may be null.
    pub const fn may_be_null(self) -> bool {
        self.0 & Self::NULL.0 != 0
    }

    /// Whether both sets have a kind in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty: a fault was reported.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Self::NUMBER, "a number"),
            (Self::TEXT, "a text"),
            (Self::BOOL, "true or false"),
            (Self::NULL, "null"),
        ];
        let mut words = words.iter().filter(|(kind, _)| self.overlaps(*kind)).map(|(_, word)| *word);
        formatter.write_str(words.next().unwrap_or("not known"))?;
        words.try_for_each(|word| write!(formatter, " or {word}"))
    }
}
