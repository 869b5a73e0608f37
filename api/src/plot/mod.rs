//! A forecast as a picture outside of the page: in the terminal, or in a file for documents.

pub mod svg;
pub mod terminal;
