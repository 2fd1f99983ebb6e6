//! The shopper who requests a price.

use rust_decimal::Decimal;

/// The shopper who requests a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shopper<'a> {
    /// Where they are.
    pub location: &'a str,
    /// Whether they are a prime member.
    pub prime: bool,
    /// How many units they request.
    pub quantity: u32,
    /// The sales channel, if they named one.
    pub channel: Option<&'a str>,
    /// The group of shoppers that the seller puts them in, if any.
    pub segment: Option<&'a str>,
    /// The factor set for their location, if any.
    pub location_factor: Option<Decimal>,
}

impl<'a> Shopper<'a> {
    /// A shopper at a location who requests one unit and of whom nothing else is known.
    pub fn at(location: &'a str) -> Self {
        Self { location, prime: false, quantity: 1, channel: None, segment: None, location_factor: None }
    }
}
