//! Where commands print.

use std::io::{Error, ErrorKind, Result, Write};

/// Standard output of a command, or any other place: that nobody reads on (`| head`) is no error, and what was begun is finished.
#[derive(Debug)]
pub struct Output<W>(pub W);

/// `fallback` for a pipe that nobody reads.
fn unread<T>(done: Result<T>, fallback: T) -> Result<T> {
    let is_unread = |error: &Error| error.kind() == ErrorKind::BrokenPipe;
    match done {
        Err(error) if is_unread(&error) => Ok(fallback),
        other => other,
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        unread(self.0.write(bytes), bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        unread(self.0.flush(), ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
        let mut unread = Output(Broken(ErrorKind::BrokenPipe));
        writeln!(unread, "a line").unwrap();
        unread.flush().unwrap();
        let mut full = Output(Broken(ErrorKind::StorageFull));
        assert_eq!(writeln!(full, "a line").unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(full.flush().unwrap_err().kind(), ErrorKind::StorageFull);
        let mut read = Vec::new();
        writeln!(Output(&mut read), "a line").unwrap();
        assert_eq!(read, b"a line\n");
    }
}
