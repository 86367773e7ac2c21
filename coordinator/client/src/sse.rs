//! Server-sent events: bytes in, frames out.
//!
//! Source: WHATWG HTML, "Server-sent events", parsing an event stream. Own code because it has to be bounded.

/// Largest line and largest frame, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its number, if it has one.
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// A stream that is no event stream, or has a frame that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than 1 MiB, or text that is not UTF-8")]
pub(crate) struct Malformed;

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
    after_return: bool,
    is_begun: bool,
}

impl Parser {
    /// Takes the next bytes; returns the frames that they complete.
    ///
    /// # Errors
    /// [`Malformed`]; the stream is of no use afterwards.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, Malformed> {
        let mut frames = Vec::new();
        for &byte in bytes {
            let follows_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                // The second half of a line end.
                b'\n' if follows_return => {}
                b'\n' | b'\r' => frames.extend(self.end_line()?),
                byte => {
                    if self.line.len() >= BYTES_MAX {
                        return Err(Malformed);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(frames)
    }

    fn end_line(&mut self) -> Result<Option<Frame>, Malformed> {
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|_| Malformed)?;
        let text = if self.is_begun { text } else { text.trim_start_matches('\u{feff}') };
        self.is_begun = true;
        if text.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return Ok(std::mem::take(&mut self.has_data).then_some(frame));
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                if self.frame.data.len() + value.len() > BYTES_MAX {
                    return Err(Malformed);
                }
                self.frame.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.frame.name),
            "id" if !value.contains('\0') => self.frame.id = Some(value.to_owned()),
            // Comments, `retry`, and what is not known.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(id: Option<&str>, name: &str, data: &str) -> Frame {
        Frame { id: id.map(ToOwned::to_owned), name: name.into(), data: data.into() }
    }

    const STREAM: &str = "\u{feff}: hello\n\nid: 1\nevent: phase\ndata: {\"a\":1}\n\n:\n\nevent:x\r\ndata:one\r\ndata: two\r\n\r\n\
                          id: 3\rdata\r\revent: no data\n\nretry: 5\nunknown: y\nid: a\0b\ndata: ü\n\ndata: unfinished\n";

    fn expected() -> Vec<Frame> {
        vec![
            frame(Some("1"), "phase", "{\"a\":1}"),
            frame(None, "x", "one\ntwo"),
            frame(Some("3"), "", ""),
            frame(None, "", "ü"),
        ]
    }

    #[test]
    fn frames_come_out_and_comments_do_not() {
        assert_eq!(Parser::default().push(STREAM.as_bytes()).unwrap(), expected());
    }

    #[test]
    fn endless_lines_and_frames_and_other_encodings_are_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; BYTES_MAX]).is_ok());
        assert_eq!(parser.push(b"x"), Err(Malformed));
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; BYTES_MAX - 6], b"\n"].concat();
        assert!(parser.push(&line).is_ok());
        assert_eq!(parser.push(&line), Err(Malformed));
        assert_eq!(Parser::default().push(b"data: \xff\n"), Err(Malformed));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(cuts in prop::collection::vec(1usize..20, 0..200)) {
            let (mut parser, mut rest, mut frames) = (Parser::default(), STREAM.as_bytes(), Vec::new());
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                frames.extend(parser.push(piece).unwrap());
                rest = later;
            }
            frames.extend(parser.push(rest).unwrap());
            prop_assert_eq!(frames, expected());
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Parser::default().push(&bytes);
        }
    }
}
