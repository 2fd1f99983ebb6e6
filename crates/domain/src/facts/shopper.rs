//! The shopper who requests a price.

use rust_decimal::Decimal;

/// The longest location, channel or segment of a shopper, in bytes.
pub const MAX_TRAIT_BYTES: usize = 64;

/// The most units that a shopper may request.
pub const MAX_QUANTITY: u32 = 1_000_000;

/// The shopper who requests a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shopper<'a> {
    /// The shopper's location.
    pub location: &'a str,
    /// Whether the shopper is a prime member.
    pub prime: bool,
    /// The number of units requested.
    pub quantity: u32,
    /// The sales channel, if stated.
    pub channel: Option<&'a str>,
    /// The segment that the seller assigned to the shopper, if any.
    pub segment: Option<&'a str>,
    /// The price factor of the location, if one is set.
    pub location_factor: Option<Decimal>,
}

impl<'a> Shopper<'a> {
    /// Creates a shopper at a location who requests one unit and of whom nothing else is known.
    pub fn at(location: &'a str) -> Self {
        Self { location, prime: false, quantity: 1, channel: None, segment: None, location_factor: None }
    }
}
