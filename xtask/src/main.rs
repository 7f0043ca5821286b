//! Tasks of the workspace: `cargo xtask <task>`.

mod accuracy;
mod bench_report;
mod dist;
mod gpu_tests;
mod inner_loops;
mod ptx;
mod tool;

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
    /// Make docs/benchmarks.md and its plots out of what the benchmarks left in target/criterion.
    BenchReport(bench_report::Args),
    /// Build the binary for this machine as it is handed out, check it, and leave it in target/dist.
    Dist(dist::Dist),
    /// The same for another machine, by default ARM64 Linux; tests run under emulation.
    Cross(dist::Cross),
    /// Count the instructions in the inner loops of products on ARM64.
    InnerLoops(inner_loops::Args),
    /// Build tests and benchmarks for a machine with an NVIDIA GPU, and leave them in a folder to carry.
    GpuTests(gpu_tests::Args),
    /// Compile the CUDA kernels to what is checked in; needs nvcc 13.
    Ptx(ptx::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Accuracy(args) => accuracy::run(&args),
        Task::BenchReport(args) => bench_report::run(&args),
        Task::Dist(args) => dist::dist(&args),
        Task::Cross(args) => dist::cross(&args),
        Task::InnerLoops(args) => inner_loops::run(&args),
        Task::GpuTests(args) => gpu_tests::run(&args),
        Task::Ptx(args) => ptx::run(&args),
    }
}
