//! What is known of a shopper, and which of it is personal.
//!
//! Personal is what describes the person rather than the purchase (Regulation (EU) 2016/679, article 4, point
//! 1). Where a price depends on it, the shopper has to be informed that the price was personalised on the
//! basis of automated decision-making (Directive 2011/83/EU, article 6, paragraph 1, point ea).

/// Something that is known of a shopper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// [`Shopper::location`](super::shopper::Shopper::location), and the price factor that is set for it.
    Location,
    /// [`Shopper::prime`](super::shopper::Shopper::prime).
    Prime,
    /// [`Shopper::quantity`](super::shopper::Shopper::quantity).
    Quantity,
    /// [`Shopper::channel`](super::shopper::Shopper::channel).
    Channel,
    /// [`Shopper::segment`](super::shopper::Shopper::segment).
    Segment,
}

/// Every dimension with its name and whether it is personal, in the order of [`Dimension`].
pub const DIMENSIONS: [(Dimension, &str, bool); 5] = [
    (Dimension::Location, "location", true),
    (Dimension::Prime, "prime", true),
    // What is bought and where describe the purchase: every shopper who buys the same way pays the same.
    (Dimension::Quantity, "quantity", false),
    (Dimension::Channel, "channel", false),
    (Dimension::Segment, "segment", true),
];

impl Dimension {
    /// Whether it describes the person rather than the purchase.
    pub fn is_personal(self) -> bool {
        DIMENSIONS.get(self as usize).is_none_or(|(.., is_personal)| *is_personal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_dimensions() {
        for (index, (dimension, _, is_personal)) in DIMENSIONS.into_iter().enumerate() {
            assert_eq!((dimension as usize, dimension.is_personal()), (index, is_personal));
        }
    }
}
