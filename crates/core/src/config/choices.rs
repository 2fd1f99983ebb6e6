//! Variables with a fixed set of values. Their rows in the table list the same values.

use std::str::FromStr;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text in a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Human-readable text.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("auto, json or text"),
        }
    }
}

/// How spans are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, as protobuf.
    Http,
}

impl FromStr for OtlpProtocol {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written {
            "grpc" => Ok(Self::Grpc),
            // The engine's name of it, and OpenTelemetry's.
            "http" | "http/protobuf" => Ok(Self::Http),
            _ => Err("grpc or http"),
        }
    }
}

/// Whether metrics are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsSwitch {
    /// Metrics are recorded.
    On,
    /// No metric is recorded; for measuring the cost of recording.
    Off,
}

impl FromStr for MetricsSwitch {
    type Err = &'static str;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("on or off"),
        }
    }
}
