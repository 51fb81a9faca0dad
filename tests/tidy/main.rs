//! The rules of the tree, as tests: what a reader may rely on without looking. Each failure names file and line.
//!
//! `tree` finds the files; `layers` says which library and which part of the world may be named where; `text` looks at
//! what is written: front pages, leftovers, lengths; `docs` checks that what the documentation names is there.

mod docs;
mod layers;
mod text;
mod tree;
