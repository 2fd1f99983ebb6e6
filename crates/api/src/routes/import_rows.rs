//! Rows out of a stream of bytes that is cut anywhere: CSV or NDJSON.
//!
//! No row is longer than [`MAX_ROW_BYTES`]; a longer one is refused and read past, so neither an open quote nor a
//! missing line end can fill the memory.

use std::collections::HashSet;

use csv_core::ReadRecordResult;
use pricing_core::domain::diagnostic::{Diagnostic, shorten};
use pricing_core::domain::product::{ProductDraft, WrittenNumber};

use crate::error::ApiError;

/// The longest row.
const MAX_ROW_BYTES: usize = 64 * 1024;
/// Columns of a CSV file.
const MAX_COLUMNS: usize = 64;

/// The formats of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Ndjson,
}

impl Format {
    /// The format with this media type; parameters such as the character set are passed over.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "text/csv" | "application/csv" => Some(Self::Csv),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// One row: a product as written, or why it cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The line it starts on, from 1.
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

    /// The next row that ends within `input`, which is moved past it; `None` when more bytes are needed.
    pub(crate) fn next_row(&mut self, input: &mut &[u8]) -> Result<Option<Row>, ApiError> {
        match self {
            Self::Csv(reader) => reader.next_row(input),
            Self::Ndjson(reader) => Ok(reader.next_row(input)),
        }
    }

    /// A row that the end of the stream ends.
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
    /// The line being read, from 1.
    line: u64,
    /// The line on which the row began.
    row_line: u64,
    columns: Option<Vec<Column>>,
}

/// What a column of a CSV file means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Column {
    ProductId,
    Name,
    Category,
    Brand,
    Currency,
    BasePrice,
    UnitCost,
    FloorPrice,
    CeilingPrice,
    MinimumAdvertisedPrice,
    Attribute(String),
}

/// The columns that become no attributes, as a header names them.
const COLUMN_NAMES: [&str; 10] = [
    "product_id",
    "name",
    "category",
    "brand",
    "currency",
    "base_price",
    "unit_cost",
    "floor_price",
    "ceiling_price",
    "minimum_advertised_price",
];

impl Default for CsvReader {
    fn default() -> Self {
        Self {
            machine: csv_core::Reader::new(),
            text: vec![0; MAX_ROW_BYTES],
            text_used: 0,
            ends: vec![0; MAX_COLUMNS],
            ends_used: 0,
            too_long: false,
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
        // To the machine, no input means the end of the stream.
        if self.feed(&mut &[][..])
            && let Some(row) = self.end_row()?
        {
            return Ok(Some(row));
        }
        match self.columns {
            Some(_) => Ok(None),
            None => Err(malformed("the file is empty; a header line is expected")),
        }
    }

    fn row_is_empty(&self) -> bool {
        self.text_used == 0 && self.ends_used == 0 && !self.too_long
    }

    /// Line ends between rows, so that the line on which the next row begins is known.
    fn skip_line_ends(&mut self, input: &mut &[u8]) {
        let length = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let (line_ends, rest) = input.split_at(length);
        self.line += count_lines(line_ends);
        self.row_line = self.line;
        *input = rest;
    }

    /// Reads on; whether a row has ended.
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
                // The row is refused; what is left of it is read over what there is.
                ReadRecordResult::OutputFull => (self.too_long, self.text_used) = (true, 0),
                ReadRecordResult::OutputEndsFull => (self.too_long, self.ends_used) = (true, 0),
            }
        }
    }

    /// Takes the row that has ended; `None` if it is the header.
    fn end_row(&mut self) -> Result<Option<Row>, ApiError> {
        let fields = if self.too_long { Err(too_long()) } else { self.fields() };
        let line = self.row_line;
        (self.text_used, self.ends_used, self.too_long) = (0, 0, false);
        match &self.columns {
            Some(columns) => {
                Ok(Some(Row { line, draft: fields.and_then(|fields| draft_of(columns, fields)) }))
            }
            None => {
                let header =
                    fields.map_err(|errors| malformed(&format!("the header: {}", first(&errors))))?;
                self.columns = Some(read_header(&header)?);
                Ok(None)
            }
        }
    }

    fn fields(&self) -> Result<Vec<String>, Vec<Diagnostic>> {
        let mut start = 0;
        let mut fields = Vec::with_capacity(self.ends_used);
        for end in self.ends.iter().take(self.ends_used) {
            let bytes = self.text.get(start..*end).unwrap_or_default();
            let text = std::str::from_utf8(bytes)
                .map_err(|_| vec![Diagnostic::new("row", "is not UTF-8", "text encoded as UTF-8")])?;
            fields.push(text.trim().to_owned());
            start = *end;
        }
        Ok(fields)
    }
}

fn read_header(names: &[String]) -> Result<Vec<Column>, ApiError> {
    let columns = names.iter().map(|name| column(name.trim_start_matches('\u{feff}').trim()));
    let columns = columns.collect::<Result<Vec<Column>, ApiError>>()?;
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().zip(names).find(|(column, _)| !seen.insert(*column)) {
        return Err(malformed(&format!("the header names \"{}\" twice", shorten(twice.1))));
    }
    let required = [
        (Column::ProductId, "product_id"),
        (Column::Currency, "currency"),
        (Column::BasePrice, "base_price"),
    ];
    for (column, name) in required {
        if !columns.contains(&column) {
            return Err(malformed(&format!("the header has no column {name}")));
        }
    }
    Ok(columns)
}

fn column(name: &str) -> Result<Column, ApiError> {
    Ok(match name {
        "product_id" => Column::ProductId,
        "name" => Column::Name,
        "category" => Column::Category,
        "brand" => Column::Brand,
        "currency" => Column::Currency,
        "base_price" => Column::BasePrice,
        "unit_cost" => Column::UnitCost,
        "floor_price" => Column::FloorPrice,
        "ceiling_price" => Column::CeilingPrice,
        "minimum_advertised_price" => Column::MinimumAdvertisedPrice,
        other => match column_meant(other) {
            None => Column::Attribute(other.to_owned()),
            // As an attribute it would leave the product without what it says: a price without its floor.
            Some(meant) => {
                let written = shorten(other);
                return Err(malformed(&format!("the header names \"{written}\": write {meant}")));
            }
        },
    })
}

/// The column whose name differs from this one only by case, blanks, hyphens and underscores.
fn column_meant(name: &str) -> Option<&'static str> {
    let bare = |name: &str| -> String {
        let kept = name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '_'));
        kept.flat_map(char::to_lowercase).collect()
    };
    let written = bare(name);
    COLUMN_NAMES.into_iter().find(|known| bare(known) == written)
}

fn draft_of(columns: &[Column], fields: Vec<String>) -> Result<ProductDraft, Vec<Diagnostic>> {
    if fields.len() != columns.len() {
        let problem = format!("has {} fields", fields.len());
        return Err(vec![Diagnostic::new(
            "row",
            problem,
            format!("{} fields, as the header", columns.len()),
        )]);
    }
    let mut draft = ProductDraft::default();
    for (column, field) in columns.iter().zip(fields) {
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
            Column::Attribute(name) if field.is_empty() || name.is_empty() => {}
            Column::Attribute(name) => {
                draft.attributes.insert(name.clone(), field);
            }
        }
    }
    Ok(draft)
}

/// Reads one JSON object a line.
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

    /// Takes the line; `None` if there is nothing on it.
    fn end_row(&mut self) -> Option<Row> {
        let draft = if self.too_long {
            Err(too_long())
        } else if self.text.trim_ascii().is_empty() {
            self.text.clear();
            return None;
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

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn too_long() -> Vec<Diagnostic> {
    let allowed = format!("at most {MAX_ROW_BYTES} bytes and {MAX_COLUMNS} fields; is a quote not closed?");
    vec![Diagnostic::new("row", "is too long", allowed)]
}

fn first(errors: &[Diagnostic]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}

fn malformed(reason: &str) -> ApiError {
    ApiError::MalformedBody { reason: reason.to_owned() }
}

#[cfg(test)]
#[path = "import_rows_tests.rs"]
mod tests;
