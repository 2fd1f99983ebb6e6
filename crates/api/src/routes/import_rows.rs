//! Parses rows, CSV or NDJSON, from a stream of bytes in chunks of any size.
//!
//! No row is longer than [`MAX_ROW_BYTES`]; a longer one is refused and skipped, so neither an unclosed quote
//! nor a missing line end can exhaust memory.

use std::ops::RangeInclusive;

use csv_core::ReadRecordResult;
use pricing_domain::diagnostic::{Diagnostic, shorten};
use pricing_domain::facts::product::{ProductDraft, WrittenNumber};

use super::import_header::{Column, MAX_COLUMNS, attributes, read_header, unreadable};
use crate::error::ApiError;

/// The longest row.
const MAX_ROW_BYTES: usize = 64 * 1024;

/// The formats of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Ndjson,
}

impl Format {
    /// The format with this media type; parameters such as the character set are ignored.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/csv" | "application/csv" => Some(Self::Csv),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// A row: a product as written, or the reasons why it cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The line on which it starts, from 1.
    pub(crate) line: u64,
    pub(crate) draft: Result<ProductDraft, Vec<Diagnostic>>,
}

/// Reads rows of either format.
pub(crate) enum RowReader {
    Csv(Box<CsvReader>),
    Ndjson(NdjsonReader),
}

impl RowReader {
    pub(crate) fn new(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv(Box::default()),
            Format::Ndjson => Self::Ndjson(NdjsonReader { line: 1, ..NdjsonReader::default() }),
        }
    }

    /// The next row that ends within `input`, which is advanced past it; `None` if more bytes are needed.
    pub(crate) fn next_row(&mut self, input: &mut &[u8]) -> Result<Option<Row>, ApiError> {
        match self {
            Self::Csv(reader) => reader.next_row(input),
            Self::Ndjson(reader) => Ok(reader.next_row(input)),
        }
    }

    /// The columns that became attributes; none for NDJSON, where attributes are named as such.
    pub(crate) fn attribute_columns(&self) -> Vec<String> {
        match self {
            Self::Csv(reader) => attributes(reader.columns.as_deref().unwrap_or_default()).cloned().collect(),
            Self::Ndjson(_) => Vec::new(),
        }
    }

    /// The last row, if it has no line end.
    pub(crate) fn last_row(&mut self) -> Result<Option<Row>, ApiError> {
        match self {
            Self::Csv(reader) => reader.last_row(),
            Self::Ndjson(reader) => Ok(reader.last_row()),
        }
    }
}

/// Reads CSV (RFC 4180) with a header line.
pub(crate) struct CsvReader {
    machine: csv_core::Reader,
    /// The text of the row's fields so far, one after the other.
    text: Vec<u8>,
    text_used: usize,
    /// Where each field ends.
    ends: Vec<usize>,
    ends_used: usize,
    too_long: bool,
    /// The number of fields that did not fit into `ends`.
    fields_left_out: usize,
    /// The line being read, from 1.
    line: u64,
    /// The line on which the row began.
    row_line: u64,
    columns: Option<Vec<Column>>,
}

impl Default for CsvReader {
    fn default() -> Self {
        Self {
            machine: csv_core::Reader::new(),
            text: vec![0; MAX_ROW_BYTES],
            text_used: 0,
            ends: vec![0; MAX_COLUMNS],
            ends_used: 0,
            too_long: false,
            fields_left_out: 0,
            line: 1,
            row_line: 1,
            columns: None,
        }
    }
}

impl CsvReader {
    fn next_row(&mut self, input: &mut &[u8]) -> Result<Option<Row>, ApiError> {
        while !input.is_empty() {
            if self.row_is_empty() {
                self.skip_line_ends(input);
                if input.is_empty() {
                    break;
                }
            }
            if self.feed(input)
                && let Some(row) = self.end_row()?
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn last_row(&mut self) -> Result<Option<Row>, ApiError> {
        // To the state machine, empty input means the end of the stream.
        if self.feed(&mut &[][..])
            && let Some(row) = self.end_row()?
        {
            return Ok(Some(row));
        }
        match self.columns {
            Some(_) => Ok(None),
            None => Err(empty_file()),
        }
    }

    fn row_is_empty(&self) -> bool {
        self.text_used == 0 && self.ends_used == 0 && !self.too_long
    }

    /// Skips line ends between rows, so that the line on which the next row begins is known.
    fn skip_line_ends(&mut self, input: &mut &[u8]) {
        let length = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let (line_ends, rest) = input.split_at(length);
        self.line += count_lines(line_ends);
        self.row_line = self.line;
        *input = rest;
    }

    /// Feeds the state machine; returns whether a row has ended.
    fn feed(&mut self, input: &mut &[u8]) -> bool {
        loop {
            let text = self.text.get_mut(self.text_used..).unwrap_or_default();
            let ends = self.ends.get_mut(self.ends_used..).unwrap_or_default();
            let (result, read, written, ended) = self.machine.read_record(input, text, ends);
            let (consumed, rest) = input.split_at(read);
            self.line += count_lines(consumed);
            *input = rest;
            self.text_used += written;
            self.ends_used += ended;
            match result {
                ReadRecordResult::Record => return true,
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return false,
                // The row is refused; the rest of it overwrites the buffer.
                ReadRecordResult::OutputFull => (self.too_long, self.text_used) = (true, 0),
                ReadRecordResult::OutputEndsFull => {
                    self.fields_left_out += self.ends_used;
                    (self.too_long, self.ends_used) = (true, 0);
                }
            }
        }
    }

    /// Returns the row that has ended; `None` if it is the header.
    fn end_row(&mut self) -> Result<Option<Row>, ApiError> {
        let fields = self.fields();
        let line = self.row_line;
        // Only quoted fields span several lines.
        let last_line = line + count_lines(self.text.get(..self.text_used).unwrap_or_default());
        (self.text_used, self.ends_used, self.too_long, self.fields_left_out) = (0, 0, false, 0);
        match &self.columns {
            Some(columns) => {
                let draft = fields.and_then(|fields| draft_of(columns, fields, line..=last_line));
                Ok(Some(Row { line, draft }))
            }
            None => {
                self.columns = Some(read_header(&fields.map_err(unreadable)?)?);
                Ok(None)
            }
        }
    }

    fn fields(&self) -> Result<Vec<String>, Vec<Diagnostic>> {
        if self.fields_left_out > 0 {
            let problem = format!("has {} fields", self.fields_left_out + self.ends_used);
            return Err(vec![Diagnostic::new("row", problem, format!("at most {MAX_COLUMNS}"))]);
        }
        if self.too_long {
            return Err(too_long());
        }
        let mut start = 0;
        let mut fields = Vec::with_capacity(self.ends_used);
        for end in self.ends.iter().take(self.ends_used) {
            let bytes = self.text.get(start..*end).unwrap_or_default();
            let text = std::str::from_utf8(bytes).map_err(|_| vec![not_utf8(bytes)])?;
            fields.push(text.trim().to_owned());
            start = *end;
        }
        Ok(fields)
    }
}

fn draft_of(
    columns: &[Column],
    fields: Vec<String>,
    lines: RangeInclusive<u64>,
) -> Result<ProductDraft, Vec<Diagnostic>> {
    if fields.len() != columns.len() {
        let problem = format!("has {} fields", fields.len());
        let (first, last) = (lines.start(), lines.end());
        let allowed = match first < last {
            true => format!(
                "{} fields, as the header; it goes from line {first} to line {last}: is a quote not closed?",
                columns.len()
            ),
            false => format!("{} fields, as the header", columns.len()),
        };
        return Err(vec![Diagnostic::new("row", problem, allowed)]);
    }
    let mut draft = ProductDraft::default();
    for (number, (column, field)) in columns.iter().zip(fields).enumerate() {
        match column {
            Column::ProductId => draft.product_id = Some(field),
            Column::Name => draft.name = Some(field),
            Column::Category => draft.category = Some(field),
            Column::Brand => draft.brand = Some(field),
            Column::Currency => draft.currency = Some(field),
            Column::BasePrice => draft.base_price = Some(WrittenNumber(field)),
            Column::UnitCost => draft.unit_cost = Some(WrittenNumber(field)),
            Column::FloorPrice => draft.floor_price = Some(WrittenNumber(field)),
            Column::CeilingPrice => draft.ceiling_price = Some(WrittenNumber(field)),
            Column::MinimumAdvertisedPrice => draft.minimum_advertised_price = Some(WrittenNumber(field)),
            Column::Attribute(_) | Column::Unnamed if field.is_empty() => {}
            Column::Unnamed => {
                let problem =
                    format!("has \"{}\" in column {}, which has no name", shorten(&field), number + 1);
                return Err(vec![Diagnostic::new(
                    "row",
                    problem,
                    "a name in the header, or nothing in the column",
                )]);
            }
            Column::Attribute(name) => {
                draft.attributes.insert(name.clone(), field);
            }
        }
    }
    Ok(draft)
}

/// Reads one JSON object per line.
#[derive(Default)]
pub(crate) struct NdjsonReader {
    text: Vec<u8>,
    too_long: bool,
    /// The line being read, from 1.
    line: u64,
}

impl NdjsonReader {
    fn next_row(&mut self, input: &mut &[u8]) -> Option<Row> {
        while let Some(length) = input.iter().position(|byte| *byte == b'\n') {
            let (text, rest) = input.split_at(length);
            self.keep(text);
            *input = rest.get(1..).unwrap_or_default();
            let row = self.end_row();
            self.line += 1;
            if row.is_some() {
                return row;
            }
        }
        self.keep(input);
        *input = &[];
        None
    }

    fn last_row(&mut self) -> Option<Row> {
        self.end_row()
    }

    fn keep(&mut self, text: &[u8]) {
        // Some editors begin a file with a byte order mark.
        let begins = self.line == 1 && self.text.is_empty() && !self.too_long;
        let text = if begins { text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text) } else { text };
        if self.text.len() + text.len() > MAX_ROW_BYTES {
            self.too_long = true;
            self.text.clear();
        } else if !self.too_long {
            self.text.extend_from_slice(text);
        }
    }

    /// Returns the row of the line; `None` if the line is blank.
    fn end_row(&mut self) -> Option<Row> {
        let draft = if self.too_long {
            Err(too_long())
        } else if self.text.trim_ascii().is_empty() {
            self.text.clear();
            return None;
        } else if self.text.trim_ascii_start().starts_with(b"[") {
            Err(vec![Diagnostic::new(
                "row",
                "is a JSON array",
                "each product as a JSON object on a line of its own",
            )])
        } else if !crate::extract::is_object(&self.text) {
            Err(vec![Diagnostic::new("row", "is not a JSON object", "a product as a JSON object")])
        } else {
            serde_json::from_slice(&self.text).map_err(|error| {
                vec![Diagnostic::new("row", format!("cannot be read: {error}"), "a product as a JSON object")]
            })
        };
        self.text.clear();
        self.too_long = false;
        Some(Row { line: self.line, draft })
    }
}

fn not_utf8(bytes: &[u8]) -> Diagnostic {
    let problem = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16",
        _ => "is not UTF-8",
    };
    Diagnostic::new("row", problem, "text encoded as UTF-8")
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn too_long() -> Vec<Diagnostic> {
    let allowed = format!("at most {MAX_ROW_BYTES} bytes and {MAX_COLUMNS} fields; is a quote not closed?");
    vec![Diagnostic::new("row", "is too long", allowed)]
}

fn empty_file() -> ApiError {
    let reason = "the file is empty; a header line is expected".to_owned();
    ApiError::UnusableHeader { reason, errors: Vec::new() }
}

#[cfg(test)]
#[path = "import_rows_tests.rs"]
mod tests;
