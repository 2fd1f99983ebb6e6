//! Expressions: how the model writes and reads them.

use crate::fraction::Fraction;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Number(Fraction),
    Text(String),
    Truth(bool),
}

/// What makes a rule fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) &'static str);

pub(crate) const NOT_KNOWN: Failed = Failed("more is asked of what is not known");

#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Number(Fraction),
    Text(&'static str),
    Name(&'static str),
    /// `+ - * / %`
    Arithmetic(char, Box<Self>, Box<Self>),
    /// `== != < <= > >=`, between two that have values.
    Compare(&'static str, Box<Self>, Box<Self>),
    IsNull(Box<Self>),
    IsNotNull(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Choose(Box<Self>, Box<Self>, Box<Self>),
    Otherwise(Box<Self>, Box<Self>),
    /// `in` or `not in`
    InList(&'static str, Box<Self>, Vec<Self>),
    /// Between two, with or without each: `(a..b]`.
    Between(Box<Self>, [char; 2], Box<Self>, Box<Self>),
    Negative(Box<Self>),
    /// `abs`, `floor`, `ceil`; `round` and `trunc` also with decimal places.
    Call(&'static str, Box<Self>, Option<u32>),
    /// `min`, `max`
    Extreme(&'static str, Vec<Self>),
}

impl Expression {
    /// The text, with brackets around whatever has parts.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.decimal_text().expect("a decimal number"),
            Self::Text(text) => format!("'{text}'"),
            Self::Name(name) => (*name).to_owned(),
            Self::Arithmetic(sign, left, right) => format!("({} {sign} {})", left.text(), right.text()),
            Self::Compare(sign, left, right) => format!("({} {sign} {})", left.text(), right.text()),
            Self::IsNull(inner) => format!("({} == null)", inner.text()),
            Self::IsNotNull(inner) => format!("({} != null)", inner.text()),
            Self::And(left, right) => format!("({} and {})", left.text(), right.text()),
            Self::Or(left, right) => format!("({} or {})", left.text(), right.text()),
            Self::Not(inner) => format!("(not ({}))", inner.text()),
            Self::Choose(condition, yes, no) => {
                format!("({} ? {} : {})", condition.text(), yes.text(), no.text())
            }
            Self::Otherwise(left, right) => format!("({} ?? {})", left.text(), right.text()),
            Self::InList(word, left, list) => format!("({} {word} [{}])", left.text(), texts(list)),
            Self::Between(left, [open, close], low, high) => {
                format!("({} in {open}{}..{}{close})", left.text(), low.text(), high.text())
            }
            Self::Negative(inner) => format!("(-{})", inner.text()),
            Self::Call(name, inner, None) => format!("{name}({})", inner.text()),
            Self::Call(name, inner, Some(places)) => format!("{name}({}, {places})", inner.text()),
            Self::Extreme(name, list) => format!("{name}([{}])", texts(list)),
        }
    }

    /// Its names, each as often as it is there.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        match self {
            Self::Number(_) | Self::Text(_) => Vec::new(),
            Self::Name(name) => vec![name],
            Self::IsNull(inner) | Self::IsNotNull(inner) | Self::Not(inner) => inner.names(),
            Self::Negative(inner) | Self::Call(_, inner, _) => inner.names(),
            Self::Arithmetic(_, left, right) | Self::Compare(_, left, right) => both(left, right),
            Self::And(left, right) | Self::Or(left, right) | Self::Otherwise(left, right) => {
                both(left, right)
            }
            Self::Choose(first, second, third) | Self::Between(first, _, second, third) => {
                [first.names(), second.names(), third.names()].concat()
            }
            Self::InList(_, left, list) => {
                let mut names = left.names();
                names.extend(list.iter().flat_map(Self::names));
                names
            }
            Self::Extreme(_, list) => list.iter().flat_map(Self::names).collect(),
        }
    }

    pub(crate) fn number(&self, of_name: &dyn Fn(&str) -> Value) -> Result<Fraction, Failed> {
        match self.value(of_name)? {
            Value::Number(number) => Ok(number),
            _ => Err(NOT_KNOWN),
        }
    }

    pub(crate) fn truth(&self, of_name: &dyn Fn(&str) -> Value) -> Result<bool, Failed> {
        match self.value(of_name)? {
            Value::Truth(truth) => Ok(truth),
            _ => Err(NOT_KNOWN),
        }
    }

    fn value(&self, of_name: &dyn Fn(&str) -> Value) -> Result<Value, Failed> {
        let truth = |truth: bool| Ok(Value::Truth(truth));
        match self {
            Self::Number(number) => Ok(Value::Number(*number)),
            Self::Text(text) => Ok(Value::Text((*text).to_owned())),
            Self::Name(name) => Ok(of_name(name)),
            Self::Arithmetic(sign, left, right) => {
                Ok(arithmetic(*sign, left.number(of_name)?, right.number(of_name)?))
            }
            Self::Compare(sign, left, right) => {
                truth(compare(sign, &left.value(of_name)?, &right.value(of_name)?)?)
            }
            Self::IsNull(inner) => truth(inner.value(of_name)? == Value::Null),
            Self::IsNotNull(inner) => truth(inner.value(of_name)? != Value::Null),
            Self::And(left, right) => truth(left.truth(of_name)? && right.truth(of_name)?),
            Self::Or(left, right) => truth(left.truth(of_name)? || right.truth(of_name)?),
            Self::Not(inner) => truth(!inner.truth(of_name)?),
            Self::Choose(condition, yes, no) => {
                if condition.truth(of_name)? {
                    yes.value(of_name)
                } else {
                    no.value(of_name)
                }
            }
            Self::Otherwise(left, right) => match left.value(of_name)? {
                Value::Null => right.value(of_name),
                known => Ok(known),
            },
            Self::InList(word, left, list) => {
                let left = left.value(of_name)?;
                let list: Vec<Value> =
                    list.iter().map(|each| each.value(of_name)).collect::<Result<_, _>>()?;
                truth(list.contains(&left) == (*word == "in"))
            }
            Self::Between(left, [open, close], low, high) => {
                let (low, high) = (low.number(of_name)?, high.number(of_name)?);
                let number = left.number(of_name)?;
                let is_end = (*open == '[' && number == low) || (*close == ']' && number == high);
                truth(low < number && number < high || is_end && low <= high)
            }
            Self::Negative(inner) => Ok(Value::Number(-inner.number(of_name)?)),
            Self::Call(name, inner, places) => {
                Ok(Value::Number(call(name, inner.number(of_name)?, places.unwrap_or(0))))
            }
            Self::Extreme(name, list) => {
                let numbers: Vec<Fraction> =
                    list.iter().map(|each| each.number(of_name)).collect::<Result<_, _>>()?;
                let extreme = if *name == "min" { numbers.iter().min() } else { numbers.iter().max() };
                extreme.copied().map(Value::Number).ok_or(NOT_KNOWN)
            }
        }
    }
}

fn both(left: &Expression, right: &Expression) -> Vec<&'static str> {
    [left.names(), right.names()].concat()
}

fn texts(list: &[Expression]) -> String {
    list.iter().map(Expression::text).collect::<Vec<_>>().join(", ")
}

/// Division by 0 gives null.
fn arithmetic(sign: char, left: Fraction, right: Fraction) -> Value {
    Value::Number(match sign {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        _ if right.is_zero() => return Value::Null,
        '/' => left / right,
        _ => left - right * Fraction::whole((left / right).trunc()),
    })
}

fn compare(sign: &str, left: &Value, right: &Value) -> Result<bool, Failed> {
    match sign {
        "==" => return Ok(left == right),
        "!=" => return Ok(left != right),
        _ => {}
    }
    let (Value::Number(left), Value::Number(right)) = (left, right) else { return Err(NOT_KNOWN) };
    Ok(match sign {
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    })
}

fn call(name: &str, number: Fraction, places: u32) -> Fraction {
    let unit = Fraction::decimal(1, places);
    let shifted = number / unit;
    let whole = match name {
        "abs" => return number.abs(),
        "floor" => shifted.floor(),
        "ceil" => shifted.ceil(),
        "trunc" => shifted.trunc(),
        _ => shifted.round_half_away(),
    };
    Fraction::whole(whole) * unit
}
