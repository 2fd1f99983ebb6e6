//! Selectors: the products and shoppers that a rule applies to.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::expression::variable::RuleKind;
use crate::facts::dimension::Dimension;
use crate::facts::product::{MAX_LABEL_CHARS, ProductId};
use crate::policy::scalar::Scalar;
use crate::policy::view::{About, View};

/// The most values in one list of a selector.
const MAX_VALUES: usize = 1_000;

/// `only` as written: each list that is there has to contain what it is compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelectorDraft {
    /// Products of these categories.
    pub categories: Option<Vec<Scalar>>,
    /// Products of these brands; market rules only.
    pub brands: Option<Vec<Scalar>>,
    /// These products.
    pub products: Option<Vec<Scalar>>,
    /// Products whose attributes have one of these values each; market rules only.
    pub attributes: BTreeMap<String, Vec<Scalar>>,
    /// Shoppers of these segments; offer rules only.
    pub segments: Option<Vec<Scalar>>,
    /// Shoppers at these locations; offer rules only.
    pub locations: Option<Vec<Scalar>>,
    /// Requests over these channels; offer rules only.
    pub channels: Option<Vec<Scalar>>,
}

/// The products and shoppers that a rule applies to; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Box<[Condition]>);

/// The compared trait, and its allowed values, sorted.
type Condition = (Trait, Box<[Box<str>]>);

/// A trait of a product or shopper that is compared with a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trait {
    Category,
    Brand,
    Product,
    Attribute(Box<str>),
    Segment,
    Location,
    Channel,
}

impl Selector {
    /// Whether the product and the shopper are selected.
    #[inline]
    pub fn selects(&self, view: &View<'_>) -> bool {
        self.0.iter().all(|condition| holds(condition, view))
    }

    /// Whether the product is selected for some shopper: conditions on the shopper are ignored.
    pub(crate) fn may_select(&self, view: &View<'_>) -> bool {
        self.selects_but(view, |what| matches!(what, Trait::Segment | Trait::Location | Trait::Channel))
    }

    /// Whether the product and the shopper are selected at some location.
    pub(crate) fn may_select_at_some_place(&self, view: &View<'_>) -> bool {
        self.selects_but(view, |what| matches!(what, Trait::Location))
    }

    /// Whether the product and the shopper are selected, whatever is personal of the shopper.
    pub(crate) fn may_select_some_person(&self, view: &View<'_>) -> bool {
        self.selects_but(view, Trait::is_personal)
    }

    /// Whether something personal of the shopper is compared.
    pub(crate) fn is_personal(&self) -> bool {
        self.0.iter().any(|(what, _)| what.is_personal())
    }

    fn selects_but(&self, view: &View<'_>, is_left_out: fn(&Trait) -> bool) -> bool {
        self.0.iter().all(|condition| is_left_out(&condition.0) || holds(condition, view))
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

#[inline]
fn holds((what, values): &Condition, view: &View<'_>) -> bool {
    what.of(view).is_some_and(|value| values.binary_search_by(|known| (**known).cmp(value)).is_ok())
}

impl Trait {
    fn of<'a>(&self, view: &View<'a>) -> Option<&'a str> {
        match (self, view.about) {
            (Self::Category, About::Market(facts)) => facts.product.category.as_deref(),
            (Self::Category, About::Offer(entry, _)) => entry.category.as_deref(),
            (Self::Product, About::Market(facts)) => Some(facts.product.product_id.as_str()),
            (Self::Product, About::Offer(entry, _)) => Some(entry.product_id.as_str()),
            (Self::Brand, About::Market(facts)) => facts.product.brand.as_deref(),
            (Self::Attribute(name), About::Market(facts)) => {
                facts.product.attributes.get(&**name).map(String::as_str)
            }
            (Self::Segment, About::Offer(_, shopper)) => shopper.segment,
            (Self::Location, About::Offer(_, shopper)) => Some(shopper.location),
            (Self::Channel, About::Offer(_, shopper)) => shopper.channel,
            // Refused when the policy is checked.
            _ => None,
        }
    }

    fn is_personal(&self) -> bool {
        let dimension = match self {
            Self::Segment => Dimension::Segment,
            Self::Location => Dimension::Location,
            Self::Channel => Dimension::Channel,
            Self::Category | Self::Brand | Self::Product | Self::Attribute(_) => return false,
        };
        dimension.is_personal()
    }

    fn name(&self) -> &str {
        match self {
            Self::Category => "category",
            Self::Brand => "brand",
            Self::Product => "product",
            Self::Attribute(name) => name,
            Self::Segment => "segment",
            Self::Location => "location",
            Self::Channel => "channel",
        }
    }
}

impl SelectorDraft {
    pub(crate) fn check(&self, place: &str, scope: RuleKind, problems: &mut Vec<Diagnostic>) -> Selector {
        const BOTH: &[RuleKind] = &[RuleKind::Market, RuleKind::Offer];
        let lists = [
            ("categories", Trait::Category, &self.categories, BOTH),
            ("brands", Trait::Brand, &self.brands, &[RuleKind::Market]),
            ("products", Trait::Product, &self.products, BOTH),
            ("segments", Trait::Segment, &self.segments, &[RuleKind::Offer]),
            ("locations", Trait::Location, &self.locations, &[RuleKind::Offer]),
            ("channels", Trait::Channel, &self.channels, &[RuleKind::Offer]),
        ];
        let mut conditions: Vec<Condition> = Vec::new();
        for (name, what, written, scopes) in lists {
            let Some(written) = written else { continue };
            let field = format!("{place}.only.{name}");
            if !scopes.contains(&scope) {
                problems.push(wrong_rule_kind(&field, scope));
                continue;
            }
            let is_right = match what {
                Trait::Product => ProductId::is_valid,
                _ => is_label,
            };
            conditions.push((what, check_list(&field, written, is_right, problems)));
        }
        for (name, written) in &self.attributes {
            let field = format!("{place}.only.attributes.{name}");
            if scope != RuleKind::Market {
                problems.push(wrong_rule_kind(&field, scope));
                continue;
            }
            let what = Trait::Attribute(name.as_str().into());
            conditions.push((what, check_list(&field, written, is_label, problems)));
        }
        Selector(conditions.into())
    }
}

fn wrong_rule_kind(field: &str, scope: RuleKind) -> Diagnostic {
    let (problem, allowed) = match scope {
        RuleKind::Market => {
            ("a list price is the same for all shoppers", "categories, brands, products, attributes")
        }
        RuleKind::Offer => {
            ("is not known when a shopper asks", "categories, products, segments, locations, channels")
        }
    };
    Diagnostic::new(field, problem, allowed)
}

fn is_label(written: &str) -> bool {
    (1..=MAX_LABEL_CHARS).contains(&written.chars().count())
}

/// Checks and sorts the values of a list.
fn check_list(
    field: &str,
    written: &[Scalar],
    is_right: fn(&str) -> bool,
    problems: &mut Vec<Diagnostic>,
) -> Box<[Box<str>]> {
    if !(1..=MAX_VALUES).contains(&written.len()) {
        let problem = format!("has {} values", written.len());
        problems.push(Diagnostic::new(field, problem, format!("1 to {MAX_VALUES}")));
    }
    for (index, Scalar(value)) in written.iter().enumerate().filter(|(_, value)| !is_right(&value.0)) {
        let problem = format!("\"{}\" is not allowed", crate::diagnostic::shorten(value));
        problems.push(Diagnostic::bare(format!("{field}[{index}]"), problem));
    }
    let mut values: Vec<Box<str>> = written.iter().map(|value| value.0.as_str().into()).collect();
    values.sort_unstable();
    values.into()
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        for (index, (what, values)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            let shown: Vec<&str> = values.iter().take(SHOWN).map(|value| &**value).collect();
            write!(formatter, "{between}{} {}", what.name(), shown.join(" or "))?;
            if values.len() > SHOWN {
                write!(formatter, " or {} more", values.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}
