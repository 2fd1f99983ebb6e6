//! A policy as the model knows it, and the YAML that says the same to the engine.

use std::fmt::Write as _;

use chrono::{DateTime, NaiveTime, SecondsFormat, TimeDelta, Utc, Weekday};

use crate::clock::{End, Schedule, Window};
use crate::expression::Expression;
use crate::fraction::Fraction;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apply {
    All,
    FirstMatch,
    BestForShopper,
}

/// A change by a part (0.05 for 5%) or by an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Part(Fraction),
    Amount(Fraction),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Which {
    Min,
    Median,
    Max,
    Nth(usize),
    Name(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Competitor {
    pub(crate) which: Which,
    pub(crate) in_stock: bool,
    pub(crate) not_older_than: Option<TimeDelta>,
}

/// What `match`, `beat` and `index` go by.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    Competitor(Competitor),
    Formula(Expression),
}

/// A step of `stock_cover` or `sell_through`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) below: Option<Fraction>,
    pub(crate) adjust: Change,
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    Adjust(Change),
    MultiplyBy(Expression),
    SetTo(Expression),
    CostPlus(Change),
    TargetMargin(Fraction),
    Match(Reference, Change),
    Beat(Reference, Change),
    Index(Reference, Fraction),
    StockCover(Vec<Step>),
    SellThrough(Vec<Step>),
    Surge { sensitivity: Fraction, cap: Fraction, decay: Option<TimeDelta> },
    QuantityTiers(Vec<(u32, Change)>),
}

/// Lists of `only`, with the name of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Only {
    pub(crate) lists: Vec<(&'static str, Vec<&'static str>)>,
    pub(crate) colours: Option<Vec<&'static str>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) priority: Option<i32>,
    pub(crate) when: Option<Expression>,
    pub(crate) only: Only,
    pub(crate) window: Window,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) action: Action,
    /// Whether what an offer takes off is a discount.
    pub(crate) is_discount: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Guardrails {
    pub(crate) min_margin: Option<Fraction>,
    pub(crate) floor_of_base: Option<Fraction>,
    pub(crate) ceiling_of_base: Option<Fraction>,
    pub(crate) max_step: Option<Fraction>,
    pub(crate) step_interval: Option<TimeDelta>,
    pub(crate) max_daily_move: Option<Fraction>,
    pub(crate) min_time_between_changes: Option<TimeDelta>,
    pub(crate) competitor_loop: Option<(i32, TimeDelta)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    HalfEven,
    HalfUp,
    HalfDown,
    Up,
    Down,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rounding {
    pub(crate) mode: Option<Mode>,
    pub(crate) increment: Option<Fraction>,
    pub(crate) endings: Vec<Fraction>,
    pub(crate) price_points: Vec<Fraction>,
}

#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) apply_market: Apply,
    pub(crate) apply_offer: Apply,
    pub(crate) market: Vec<Rule>,
    pub(crate) offer: Vec<Rule>,
    pub(crate) guardrails: Guardrails,
    pub(crate) rounding: Rounding,
}

impl Policy {
    pub(crate) fn yaml(&self) -> String {
        let mut text = "name: model\n".to_owned();
        let (market, offer) = (self.apply_market.text(), self.apply_offer.text());
        let _ = writeln!(text, "apply: {{ market: {market}, offer: {offer} }}");
        for (kind, rules) in [("market", &self.market), ("offer", &self.offer)] {
            if !rules.is_empty() {
                let _ = writeln!(text, "{kind}:");
            }
            for rule in rules {
                text.push_str(&rule.yaml());
            }
        }
        text.push_str(&self.guardrails.yaml());
        text.push_str(&self.rounding.yaml());
        text
    }
}

impl Apply {
    fn text(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::FirstMatch => "first_match",
            Self::BestForShopper => "best_for_shopper",
        }
    }
}

impl Rule {
    fn yaml(&self) -> String {
        let mut lines = vec![format!("name: {}", self.name)];
        lines.extend(self.priority.map(|priority| format!("priority: {priority}")));
        lines.extend(self.when.as_ref().map(|when| format!("when: \"{}\"", when.text())));
        lines.extend(self.only.text().map(|lists| format!("only: {{ {lists} }}")));
        lines.extend(self.window.clock.as_ref().map(|clock| format!("zone: {}", clock.zone)));
        lines.extend(self.window.from.map(|from| format!("from: {}", from.text())));
        lines.extend(self.window.until.map(|until| format!("until: {}", until.text())));
        lines.extend(self.schedule.as_ref().map(|schedule| format!("schedule: {{ {} }}", schedule.text())));
        lines.extend((!self.is_discount).then(|| "discount: false".to_owned()));
        lines.push(self.action.text());
        format!("  - {}\n", lines.join("\n    "))
    }
}

impl Only {
    fn text(&self) -> Option<String> {
        let mut lists: Vec<String> =
            self.lists.iter().map(|(name, values)| format!("{name}: [{}]", values.join(", "))).collect();
        lists.extend(
            self.colours.as_ref().map(|values| format!("attributes: {{ colour: [{}] }}", values.join(", "))),
        );
        (!lists.is_empty()).then(|| lists.join(", "))
    }
}

impl End {
    fn text(self) -> String {
        match self {
            Self::Instant(at) => instant(at),
            Self::Shown(shown) if shown.time() == NaiveTime::MIN => shown.format("%F").to_string(),
            Self::Shown(shown) => shown.format("%F %H:%M").to_string(),
        }
    }
}

impl Schedule {
    fn text(&self) -> String {
        let mut parts = vec![format!("zone: {}", self.clock.zone)];
        parts.extend(self.days.as_ref().map(|days| {
            let days: Vec<&str> = days.iter().map(|day| day_name(*day)).collect();
            format!("days: [{}]", days.join(", "))
        }));
        let time = |name: &str, time: NaiveTime| format!("{name}: \"{}\"", time.format("%H:%M"));
        parts.extend(self.from.map(|from| time("from", from)));
        parts.extend(self.until.map(|until| time("until", until)));
        parts.join(", ")
    }
}

fn day_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Mon => "mon",
        Weekday::Tue => "tue",
        Weekday::Wed => "wed",
        Weekday::Thu => "thu",
        Weekday::Fri => "fri",
        Weekday::Sat => "sat",
        Weekday::Sun => "sun",
    }
}

impl Action {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Adjust(_) => "adjust",
            Self::MultiplyBy(_) => "multiply_by",
            Self::SetTo(_) => "set_to",
            Self::CostPlus(_) => "cost_plus",
            Self::TargetMargin(_) => "target_margin",
            Self::Match(..) => "match",
            Self::Beat(..) => "beat",
            Self::Index(..) => "index",
            Self::StockCover(_) => "stock_cover",
            Self::SellThrough(_) => "sell_through",
            Self::Surge { .. } => "surge",
            Self::QuantityTiers(_) => "quantity_tiers",
        }
    }

    fn text(&self) -> String {
        let name = self.name();
        match self {
            Self::Adjust(change) | Self::CostPlus(change) => format!("{name}: \"{}\"", change.text()),
            Self::MultiplyBy(formula) | Self::SetTo(formula) => format!("{name}: \"{}\"", formula.text()),
            Self::TargetMargin(part) => format!("{name}: \"{}\"", percent(*part)),
            Self::Match(reference, Change::Amount(offset)) if offset.is_zero() => {
                format!("{name}: {{ {} }}", reference.text())
            }
            Self::Match(reference, offset) => {
                format!("{name}: {{ {}, offset: \"{}\" }}", reference.text(), offset.text())
            }
            Self::Beat(reference, by) => format!("{name}: {{ {}, by: \"{}\" }}", reference.text(), by.text()),
            Self::Index(reference, at) => {
                format!("{name}: {{ {}, at: \"{}\" }}", reference.text(), percent(*at))
            }
            Self::StockCover(steps) => format!("{name}: [{}]", steps_text(steps, Change::Amount)),
            Self::SellThrough(steps) => format!("{name}: [{}]", steps_text(steps, Change::Part)),
            Self::Surge { sensitivity, cap, decay } => {
                let decay = decay.map_or(String::new(), |decay| format!(", decay: {}", duration(decay)));
                let (sensitivity, cap) = (percent(*sensitivity), percent(*cap));
                format!("{name}: {{ sensitivity: \"{sensitivity}\", cap: \"{cap}\"{decay} }}")
            }
            Self::QuantityTiers(tiers) => {
                let tiers: Vec<String> = tiers
                    .iter()
                    .map(|(from, change)| format!("{{ from: {from}, adjust: \"{}\" }}", change.text()))
                    .collect();
                format!("{name}: [{}]", tiers.join(", "))
            }
        }
    }
}

/// Steps, whose limits are written as an amount or as a part.
fn steps_text(steps: &[Step], kind: fn(Fraction) -> Change) -> String {
    let texts: Vec<String> = steps
        .iter()
        .map(|step| {
            let below =
                step.below.map_or(String::new(), |below| format!("below: \"{}\", ", kind(below).text()));
            format!("{{ {below}adjust: \"{}\" }}", step.adjust.text())
        })
        .collect();
    texts.join(", ")
}

impl Change {
    fn text(self) -> String {
        match self {
            Self::Part(part) => percent(part),
            Self::Amount(amount) => amount.decimal_text().expect("a decimal number"),
        }
    }
}

impl Reference {
    fn text(&self) -> String {
        let competitor = match self {
            Self::Competitor(competitor) => competitor,
            Self::Formula(formula) => return format!("reference: \"{}\"", formula.text()),
        };
        let mut parts = vec![match competitor.which {
            Which::Min => "statistic: min".to_owned(),
            Which::Median => "statistic: median".to_owned(),
            Which::Max => "statistic: max".to_owned(),
            Which::Nth(nth) => format!("nth: {nth}"),
            Which::Name(name) => format!("name: {name}"),
        }];
        parts.extend(competitor.in_stock.then(|| "in_stock: true".to_owned()));
        parts.extend(competitor.not_older_than.map(|age| format!("not_older_than: {}", duration(age))));
        format!("competitor: {{ {} }}", parts.join(", "))
    }
}

impl Guardrails {
    fn yaml(&self) -> String {
        let parts = [
            ("min_margin", self.min_margin.map(percent)),
            ("floor_of_base", self.floor_of_base.map(percent)),
            ("ceiling_of_base", self.ceiling_of_base.map(percent)),
            ("max_step", self.max_step.map(percent)),
            ("step_interval", self.step_interval.map(duration)),
            ("max_daily_move", self.max_daily_move.map(percent)),
            ("min_time_between_changes", self.min_time_between_changes.map(duration)),
            ("competitor_loop", self.competitor_loop.map(loop_text)),
        ];
        block("guardrails", &parts)
    }
}

fn loop_text((moves, within): (i32, TimeDelta)) -> String {
    format!("{{ moves: {moves}, within: {} }}", duration(within))
}

impl Rounding {
    fn yaml(&self) -> String {
        let list = |numbers: &[Fraction]| {
            let texts: Vec<String> = numbers.iter().map(Fraction::to_string).collect();
            (!texts.is_empty()).then(|| format!("[{}]", texts.join(", ")))
        };
        let mode = self.mode.map(|mode| {
            match mode {
                Mode::HalfEven => "half_even",
                Mode::HalfUp => "half_up",
                Mode::HalfDown => "half_down",
                Mode::Up => "up",
                Mode::Down => "down",
            }
            .to_owned()
        });
        let parts = [
            ("mode", mode),
            ("increment", self.increment.map(|increment| increment.to_string())),
            ("endings", list(&self.endings)),
            ("price_points", list(&self.price_points)),
        ];
        block("rounding", &parts)
    }
}

fn block(name: &str, parts: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (field, value) in parts {
        if let Some(value) = value {
            let _ = writeln!(text, "  {field}: {value}");
        }
    }
    if text.is_empty() { text } else { format!("{name}:\n{text}") }
}

fn percent(part: Fraction) -> String {
    format!("{}%", part * Fraction::whole(100))
}

pub(crate) fn instant(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn duration(duration: TimeDelta) -> String {
    format!("{}s", duration.num_seconds())
}
