//! Tasks of the workspace that are not builds: `cargo xtask <task>`.

mod accuracy;

use clap::{Parser, Subcommand};

/// Tasks of the agx-ocr workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Read scanned receipts and print the character error rate of each and of all.
    Accuracy(accuracy::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Accuracy(args) => accuracy::run(&args),
    }
}
