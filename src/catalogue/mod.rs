//! The durable record of one set's state at one position. Both ends hold one.
//!
//! Layer 3. `store` keeps the rows, `directory` is one row unpacked, `digest` the root digest that is kept
//! up as rows change, `backend` the file beneath it, `edit` what changes it, `damage` what is
//! done when it cannot be read, `scan` holds it against a tree.

pub mod backend;
pub mod damage;
pub mod digest;
pub mod directory;
pub mod edit;
pub mod filter;
pub mod scan;
pub mod store;

pub use edit::Edit;
pub use store::{Catalogue, CatalogueError, Head};
