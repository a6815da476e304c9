//! The laboratory: streams made to order, good and bad.

mod line;
mod query;
mod script;

pub(crate) use line::{Lines, on_line};
pub(crate) use query::{cut, respond, watch};
