//! Shoppers who stand for others: their prices are computed without a request.

use std::sync::Arc;

use rust_decimal::Decimal;

use crate::facts::shopper::Shopper;

/// A shopper with a name, who stands for others of the same traits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedShopper {
    /// Names the shopper in reports and reasons; unique within a list.
    pub name: Arc<str>,
    /// The location; absent for one without a factor, which no rule selects.
    pub location: Option<Arc<str>>,
    /// The segment that the seller assigned, if any.
    pub segment: Option<Arc<str>>,
    /// The sales channel, if stated.
    pub channel: Option<Arc<str>>,
    /// Whether the shopper is a prime member.
    pub prime: bool,
    /// The number of units requested.
    pub quantity: u32,
}

impl NamedShopper {
    /// Creates a shopper who requests one unit and of whom nothing else is known.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { name, location: None, segment: None, channel: None, prime: false, quantity: 1 }
    }

    /// Returns the shopper as one who requests a price, with the factor that is set for the location.
    pub fn requesting(&self, location_factor: Option<Decimal>) -> Shopper<'_> {
        Shopper {
            location: self.location.as_deref().unwrap_or_default(),
            prime: self.prime,
            quantity: self.quantity,
            channel: self.channel.as_deref(),
            segment: self.segment.as_deref(),
            location_factor,
        }
    }
}
