//! The Agentic Unit contract, held against the built program.
//!
//! A test is named for the statement of the contract that it holds: `au_01_…` to `au_25_…`.

mod configuration;
mod describe;
mod exit_codes;
mod input_output;
mod limits;
mod options;
mod support;
