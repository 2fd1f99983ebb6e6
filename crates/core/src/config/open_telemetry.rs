//! OpenTelemetry's own variables, as fallbacks of those of the engine: from its specifications "Environment
//! Variables" and "OpenTelemetry Protocol Exporter".

use std::str::FromStr;

use super::choices::OtlpProtocol;
use super::environment::Environment;
use super::variable::{Allowed, Variable};

pub(super) const TRACES_ENDPOINT: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    default: "",
    allowed: Allowed::HttpUrl { may_be_off: false },
    used_by: "all",
    text: "Where traces are exported to, if PRICING_OTLP_ENDPOINT is unset; over HTTP to exactly this address.",
    is_secret: true,
};

pub(super) const ENDPOINT: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    default: "",
    allowed: Allowed::HttpUrl { may_be_off: false },
    used_by: "all",
    text: "The same, if OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is unset too; over HTTP to /v1/traces below this \
           address.",
    is_secret: true,
};

const PROTOCOLS: Allowed = Allowed::OneOf(&["grpc", "http/protobuf"]);

pub(super) const TRACES_PROTOCOL: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    default: "",
    allowed: PROTOCOLS,
    used_by: "all",
    text: "Protocol of the export of traces, if PRICING_OTLP_PROTOCOL is unset.",
    is_secret: false,
};

pub(super) const PROTOCOL: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_PROTOCOL",
    default: "",
    allowed: PROTOCOLS,
    used_by: "all",
    text: "The same, if OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is unset too.",
    is_secret: false,
};

pub(super) const SERVICE_NAME: Variable = Variable {
    name: "OTEL_SERVICE_NAME",
    default: "",
    allowed: Allowed::Text("a name"),
    used_by: "all",
    text: "The service's name in traces; by default pricing-api, pricing-worker or pricing-listener.",
    is_secret: false,
};

pub(super) const SDK_DISABLED: Variable = Variable {
    name: "OTEL_SDK_DISABLED",
    default: "false",
    allowed: Allowed::Boolean,
    used_by: "all",
    text: "Whether traces are not exported, if PRICING_OTLP_ENDPOINT is unset.",
    is_secret: false,
};

pub(super) const TRACES_SAMPLER: Variable = Variable {
    name: "OTEL_TRACES_SAMPLER",
    default: "parentbased_always_on",
    allowed: Allowed::OneOf(&[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ]),
    used_by: "all",
    text: "Which traces are recorded. Of price requests without a sampled traceparent, only the fraction \
           PRICING_TRACE_PRICE_RATIO begins a trace at all.",
    is_secret: false,
};

pub(super) const TRACES_SAMPLER_ARG: Variable = Variable {
    name: "OTEL_TRACES_SAMPLER_ARG",
    default: "1",
    allowed: Allowed::Fraction,
    used_by: "all",
    text: "Fraction of traces to record, if OTEL_TRACES_SAMPLER is traceidratio or parentbased_traceidratio.",
    is_secret: false,
};

/// Variables that the exporter and the SDK read themselves.
pub(super) const RESOURCE_ATTRIBUTES: Variable = Variable {
    name: "OTEL_RESOURCE_ATTRIBUTES",
    default: "",
    allowed: Allowed::Text("key=value pairs with commas"),
    used_by: "all",
    text: "Attributes of the service in traces. A service.name among them is not used; see OTEL_SERVICE_NAME.",
    is_secret: false,
};

pub(super) const HEADERS: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_HEADERS",
    default: "",
    allowed: Allowed::Text("key=value pairs with commas"),
    used_by: "all",
    text: "Headers of the export, such as a token of the collector's. OTEL_EXPORTER_OTLP_TRACES_HEADERS are \
           sent too.",
    is_secret: true,
};

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceSampler {
    /// Whether a trace that another service began keeps the decision of that service.
    pub follows_parent: bool,
    /// The fraction of other traces that is recorded, 0 to 1.
    pub ratio: f64,
}

/// A value of [`SDK_DISABLED`], in any case.
struct Boolean(bool);

impl FromStr for Boolean {
    type Err = std::str::ParseBoolError;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        written.to_ascii_lowercase().parse().map(Self)
    }
}

/// The protocol, by the first of the own variable and the fallbacks that is set.
pub(super) fn protocol(environment: &mut Environment<'_>, own: &Variable) -> Option<OtlpProtocol> {
    let set = first_set(environment, [own, &TRACES_PROTOCOL, &PROTOCOL])?;
    Some(set.map_or(OtlpProtocol::Grpc, |(_, protocol)| protocol))
}

/// The endpoint, in the same way; `Some(None)` if nothing is exported. Over HTTP, it includes the path.
pub(super) fn endpoint(
    environment: &mut Environment<'_>,
    own: &Variable,
    protocol: OtlpProtocol,
) -> Option<Option<String>> {
    let Boolean(is_disabled) = environment.read(&SDK_DISABLED)?;
    let set: Option<(usize, String)> = first_set(environment, [own, &TRACES_ENDPOINT, &ENDPOINT])?;
    let (place, endpoint) = match (set, protocol) {
        (Some((0, off)), _) if off == "off" => return Some(None),
        (Some((0, endpoint)), _) => (0, endpoint),
        _ if is_disabled => return Some(None),
        (Some(set), _) => set,
        (None, OtlpProtocol::Grpc) => (0, own.default.to_owned()),
        (None, OtlpProtocol::Http) => (0, "http://127.0.0.1:4318".to_owned()),
    };
    Some(Some(match protocol {
        OtlpProtocol::Http if place != 1 => below(&endpoint, place == 0),
        OtlpProtocol::Http | OtlpProtocol::Grpc => endpoint,
    }))
}

/// The address that traces are posted to below this one; `may_be_whole` if it may end in the path already.
fn below(endpoint: &str, may_be_whole: bool) -> String {
    const PATH: &str = "/v1/traces";
    let endpoint = endpoint.trim_end_matches('/');
    let is_whole = may_be_whole && endpoint.ends_with(PATH);
    if is_whole { endpoint.to_owned() } else { format!("{endpoint}{PATH}") }
}

/// The name of the service, if it is set.
pub(super) fn service_name(environment: &Environment<'_>) -> Option<String> {
    environment.optional(&SERVICE_NAME)
}

/// The sampler.
pub(super) fn sampler(environment: &mut Environment<'_>) -> Option<TraceSampler> {
    let (written, argument): (Option<String>, Option<f64>) =
        (environment.read(&TRACES_SAMPLER), environment.read(&TRACES_SAMPLER_ARG));
    let (written, argument) = (written?, argument?);
    let root = written.strip_prefix("parentbased_");
    let ratio = match root.unwrap_or(&written) {
        "always_off" => 0.0,
        "traceidratio" => argument,
        _ => 1.0,
    };
    Some(TraceSampler { follows_parent: root.is_some(), ratio })
}

/// The first of these variables that is set, with its place; `None` if any of them has a value that is not
/// allowed.
fn first_set<T: FromStr, const N: usize>(
    environment: &mut Environment<'_>,
    variables: [&Variable; N],
) -> Option<Option<(usize, T)>> {
    let values = variables.map(|variable| match environment.optional(variable) {
        Some(_) => environment.read(variable).map(Some),
        None => Some(None),
    });
    let values: Vec<Option<T>> = values.into_iter().collect::<Option<_>>()?;
    Some(values.into_iter().enumerate().find_map(|(place, value)| Some((place, value?))))
}
