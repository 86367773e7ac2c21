//! What the user sees while a batch is proved.
//!
//! [`Board`] is the pure part: it takes what happens, with the time since the start, and renders lines. [`View`] puts
//! them on a terminal (redrawn in place) or into a log (a line per change, and one every few seconds at most).

mod board;
mod view;

pub use board::{bytes_text, duration_text, Board, Step};
pub use view::View;
