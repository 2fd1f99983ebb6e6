//! Parses server-sent events from the bytes of an answer, as the HTML standard defines them ("Server-sent
//! events", section "Interpreting an event stream").

/// The longest line that is read; a longer one is cut, so that a broken stream uses bounded memory.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// An event that was received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReceivedEvent {
    pub(super) kind: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// Parses events from chunks that may end anywhere.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed right after it belongs to the same line end.
    after_return: bool,
    event: ReceivedEvent,
    data_lines: usize,
}

impl EventStream {
    /// The events that this chunk completes.
    pub(super) fn take(&mut self, chunk: &[u8]) -> Vec<ReceivedEvent> {
        let mut events = Vec::new();
        for byte in chunk {
            let follows_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(*byte),
                _ => {}
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<ReceivedEvent> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            let has_data = std::mem::take(&mut self.data_lines) > 0;
            let event = std::mem::take(&mut self.event);
            return has_data.then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.kind),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.data_lines > 0 {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.data_lines += 1;
            }
            // A comment, or an unknown field.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: Option<&str>, data: &str) -> ReceivedEvent {
        ReceivedEvent { kind: kind.to_owned(), id: id.map(str::to_owned), data: data.to_owned() }
    }

    #[test]
    fn events_are_parsed_for_any_chunks_and_line_ends() {
        let text = ": hello\n\n:\n:\nevent: price_change\nid: 1-0.0\ndata: {\"a\":1}\n\nevent:gap\ndata:one\ndata: two\n\nid: 9\n\n";
        let expected = [event("price_change", Some("1-0.0"), "{\"a\":1}"), event("gap", None, "one\ntwo")];
        for line_end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', line_end);
            for length in 1..=text.len() {
                let mut stream = EventStream::default();
                let events: Vec<_> =
                    text.as_bytes().chunks(length).flat_map(|chunk| stream.take(chunk)).collect();
                assert_eq!(events, expected, "chunks of {length}, {line_end:?}");
            }
        }
    }
}
