//! The Agentic Unit contract, held against the built program.
//!
//! A test is named for the statement of the contract that it holds: `au_01_…` to `au_25_…`.

mod batches;
mod configuration;
mod describe;
mod diagnostics;
mod documents;
mod exit_codes;
mod formats;
#[cfg(all(feature = "cuda", feature = "dynamic-loading", target_os = "linux"))]
mod gpus;
mod hostile;
mod input_output;
mod isolation;
mod limits;
mod models;
mod options;
#[cfg(target_os = "linux")]
mod scarcity;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
