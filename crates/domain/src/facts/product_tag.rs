//! Conditional changes of products: [`ProductTag`] identifies a state, and [`OnlyIf`] is a condition on the
//! stored state.
//!
//! A tag depends on the content of a product, not on when it was written: it is the same in both databases,
//! and a product that returns to an earlier state gets its earlier tag.

use std::fmt;

use rust_decimal::Decimal;

use crate::facts::product::Product;

/// Offset basis and prime of 128-bit FNV-1a (RFC 9923).
const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;

const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The state of a product: any difference in content changes the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductTag(u128);

impl ProductTag {
    /// Computes the tag of the product's state.
    pub fn of(product: &Product) -> Self {
        let mut plain = product.clone();
        // Databases may return a different number of trailing zeros.
        plain.base_price = plain.base_price.normalize();
        for amount in [
            &mut plain.unit_cost,
            &mut plain.floor_price,
            &mut plain.ceiling_price,
            &mut plain.minimum_advertised_price,
        ] {
            *amount = amount.as_ref().map(Decimal::normalize);
        }
        // Serialising these types cannot fail.
        Self(fnv_1a(&serde_json::to_vec(&plain).unwrap_or_default()))
    }
}

impl fmt::Display for ProductTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

fn fnv_1a(bytes: &[u8]) -> u128 {
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// The precondition of a change to a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnlyIf {
    /// No condition.
    Always,
    /// The product exists.
    Exists,
    /// The product does not exist.
    IsNew,
    /// The product's tag is one of these.
    IsOneOf(Vec<String>),
}

impl OnlyIf {
    /// Whether the condition holds for the stored product.
    pub fn holds(&self, stored: Option<&Product>) -> bool {
        match (self, stored) {
            (Self::Always, _) | (Self::Exists, Some(_)) | (Self::IsNew, None) => true,
            (Self::Exists, None) | (Self::IsNew, Some(_)) | (Self::IsOneOf(_), None) => false,
            (Self::IsOneOf(tags), Some(stored)) => tags.contains(&ProductTag::of(stored).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::product::{ProductDraft, WrittenNumber};

    fn product(base_price: &str, name: &str) -> Product {
        let draft = ProductDraft {
            product_id: Some("P-1".to_owned()),
            name: Some(name.to_owned()),
            currency: Some("USD".to_owned()),
            base_price: Some(WrittenNumber(base_price.to_owned())),
            unit_cost: Some(WrittenNumber("3.10".to_owned())),
            ..ProductDraft::default()
        };
        draft.check().unwrap()
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // Test vectors of RFC 9923.
        assert_eq!(fnv_1a(b""), OFFSET_BASIS);
        assert_eq!(fnv_1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn a_tag_is_that_of_one_state_however_its_amounts_are_written() {
        let kettle = product("5", "Kettle");
        let mut stored = kettle.clone();
        stored.base_price.rescale(6);
        stored.unit_cost = Some(Decimal::new(3_100, 3));
        assert_eq!(ProductTag::of(&stored), ProductTag::of(&kettle));
        for other in [product("5.01", "Kettle"), product("5", "kettle")] {
            assert_ne!(ProductTag::of(&other), ProductTag::of(&kettle));
        }
        assert_eq!(ProductTag::of(&kettle).to_string().len(), 32);
    }

    #[test]
    fn a_condition_is_on_what_is_stored() {
        let kettle = product("5", "Kettle");
        let tag = ProductTag::of(&kettle).to_string();
        let (these, others) =
            (OnlyIf::IsOneOf(vec!["1".to_owned(), tag]), OnlyIf::IsOneOf(vec!["1".to_owned()]));
        for (only_if, of_none, of_kettle) in [
            (OnlyIf::Always, true, true),
            (OnlyIf::Exists, false, true),
            (OnlyIf::IsNew, true, false),
            (these, false, true),
            (others, false, false),
        ] {
            assert_eq!(
                (only_if.holds(None), only_if.holds(Some(&kettle))),
                (of_none, of_kettle),
                "{only_if:?}"
            );
        }
    }
}
