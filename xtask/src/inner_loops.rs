//! What the compiler made of the inner loops of products on ARM64: time under emulation says nothing,
//! instructions do.

use crate::{
    dist::{ARM64, Build, Dist},
    tool,
};
use anyhow::{Context, Result, ensure};
use std::{collections::HashMap, fs, path::PathBuf, process::Command};

#[derive(clap::Args)]
pub struct Args {
    /// Ask llvm-mca, too, how many cycles a round takes on these processors.
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    mca: Vec<String>,
    /// The command to ask.
    #[arg(long, value_name = "PROGRAM", default_value = "llvm-mca")]
    llvm_mca: String,
}

/// Prints the loops, and fails where one with `bfmmla` uses the stack.
pub fn run(args: &Args) -> Result<()> {
    let assembly = assembly(&Build::new(ARM64, &Dist::default())?)?;
    let loops = loops(&fs::read_to_string(assembly)?);
    let mut spilled = Vec::new();
    ensure!(loops.iter().any(|l| l.bfmmla > 0), "no loop has bfmmla");
    println!("instructions  multiply-adds  per 1,000  stack  kernel");
    for alike in alike(&loops) {
        let inner = alike[0];
        let others = match alike.len() {
            1 => String::new(),
            n => format!(" and {} alike", n - 1),
        };
        println!(
            "{:>12} {:>14} {:>10.0}  {:<5}  {}{others}",
            inner.body.len(),
            inner.multiply_adds(),
            1e3 * inner.body.len() as f64 / inner.multiply_adds() as f64,
            if inner.uses_stack() { "yes" } else { "no" },
            inner.kernel,
        );
        for cpu in &args.mca {
            let cycles = inner.cycles(&args.llvm_mca, cpu)?;
            let rate = inner.multiply_adds() as f64 / cycles;
            println!(
                "{:>47}{cpu}: {cycles:.1} cycles, {rate:.1} multiply-adds each",
                ""
            );
        }
        if inner.bfmmla > 0 && inner.uses_stack() {
            spilled.push(&inner.kernel[..]);
        }
    }
    ensure!(
        spilled.is_empty(),
        "registers are spilled in {}",
        spilled.join(", ")
    );
    Ok(())
}

/// Loops that differ in nothing that is printed but the kernel, which generics multiply.
fn alike(loops: &[InnerLoop]) -> Vec<Vec<&InnerLoop>> {
    let mut groups: Vec<Vec<&InnerLoop>> = Vec::new();
    for inner in loops {
        let key = |l: &InnerLoop| (l.body.len(), l.bfmmla, l.fmla, l.uses_stack());
        match groups.iter_mut().find(|group| key(group[0]) == key(inner)) {
            Some(group) => group.push(inner),
            None => groups.push(vec![inner]),
        }
    }
    groups
}

/// The kernels as assembly.
fn assembly(build: &Build) -> Result<PathBuf> {
    let dir = build.target_dir.join("inner-loops");
    fs::create_dir_all(&dir)?;
    let to = dir.join("kernels.s");
    let mut cargo = build.cargo("rustc");
    cargo.args([
        "--locked",
        "--quiet",
        "--release",
        "--package",
        "agx-ocr-kernels",
        "--",
    ]);
    cargo.arg(format!("--emit=asm={}", to.display()));
    // One unit, and names that say of which kernel a function is made.
    cargo.args([
        "-Ccodegen-units=1",
        "-Cdebuginfo=0",
        "-Csymbol-mangling-version=v0",
    ]);
    tool::run(&mut cargo)?;
    Ok(to)
}

/// A loop without loops in it.
struct InnerLoop {
    kernel: String,
    body: Vec<String>,
    bfmmla: usize,
    fmla: usize,
}

impl InnerLoop {
    /// Two by two sums of four products, or four sums of one.
    fn multiply_adds(&self) -> usize {
        16 * self.bfmmla + 4 * self.fmla
    }

    fn uses_stack(&self) -> bool {
        // By the pointer of the stack, or of the function's frame on it.
        let uses = |line: &String| line.contains("[sp") || line.contains("[x29");
        self.body.iter().any(uses)
    }

    /// Cycles of a round in LLVM's model of a processor.
    fn cycles(&self, llvm_mca: &str, cpu: &str) -> Result<f64> {
        const ROUNDS: usize = 1000;
        let file = tempfile::NamedTempFile::with_suffix(".s")?;
        // Places to jump to are not in the text: branches are left out, as if they were free.
        let body = self.body.iter().filter(|line| !line.contains(".L"));
        let body: Vec<&str> = body.map(String::as_str).collect();
        fs::write(file.path(), body.join("\n") + "\n")?;
        let mut command = Command::new(llvm_mca);
        command
            .args(["-mtriple=aarch64", "-mattr=+bf16", &format!("-mcpu={cpu}")])
            .arg(format!("-iterations={ROUNDS}"))
            .arg(file.path());
        let said = tool::output(&mut command)?;
        let total = said
            .lines()
            .find_map(|line| line.strip_prefix("Total Cycles:"));
        let total: f64 = total.context("llvm-mca names no cycles")?.trim().parse()?;
        Ok(total / ROUNDS as f64)
    }
}

/// The inner loops of products: those with at least eight instructions that multiply and add, and
/// none that rounds, as exponentials do.
fn loops(assembly: &str) -> Vec<InnerLoop> {
    let lines: Vec<&str> = assembly.lines().collect();
    let (mut kernel, mut labels) = (String::new(), HashMap::new());
    // Kernel, first and last line of what a backward branch closes.
    let mut all: Vec<(String, usize, usize)> = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        if let Some(label) = line.strip_suffix(':') {
            if label.starts_with("_R") {
                kernel = format!("{:#}", rustc_demangle::demangle(label));
                labels.clear();
            }
            labels.insert(label, n);
        } else if let Some((_, label)) = line.rsplit_once([' ', '\t', ','])
            && let Some(first) = labels.get(label)
        {
            all.push((kernel.clone(), *first, n));
        }
    }
    let innermost = |(i, (_, first, last)): &(usize, &(String, usize, usize))| {
        let inside = |(j, (_, f, l)): (usize, &(String, usize, usize))| {
            j != *i && first <= f && l <= last && (first, last) != (f, l)
        };
        !all.iter().enumerate().any(inside)
    };
    let mut loops = Vec::new();
    for (_, (kernel, first, last)) in all.iter().enumerate().filter(innermost) {
        let body = lines[*first..=*last].iter().map(|line| line.trim());
        let is_instruction = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
        let body: Vec<String> = body.filter(is_instruction).map(str::to_owned).collect();
        let count = |name: &str| body.iter().filter(|line| line.starts_with(name)).count();
        let (bfmmla, fmla) = (count("bfmmla"), count("fmla"));
        if bfmmla + fmla >= 8 && count("frintn") == 0 {
            let kernel = kernel.replace("agx_ocr_kernels::", "");
            loops.push(InnerLoop {
                kernel,
                body,
                bfmmla,
                fmla,
            });
        }
    }
    loops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_loops_are_found() {
        let products = "\tbfmmla\tv0.4s, v1.8h, v2.8h\n".repeat(8);
        let assembly = format!(
            "_RNvCs1_1a1f:\n.LBB0_1:\n\tmov\tx0, x1\n.LBB0_2:\n\tldp\tq1, q2, [x0]\n{products}\
             \tsubs\tx0, x0, #1\n\tb.ne\t.LBB0_2\n\tcbnz\tx1, .LBB0_1\n\tb\t.LBB0_3\n.LBB0_3:\n\tret\n"
        );
        let found = loops(&assembly);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].body.len(), found[0].multiply_adds()), (11, 128));
        assert!(!found[0].uses_stack());
        for place in ["[sp, #16]", "[x29, #-32]"] {
            assert!(loops(&assembly.replace("[x0]", place))[0].uses_stack());
        }
        assert!(loops(&assembly.replace("mov", "bfmmla").replace("subs", "frintn")).is_empty());
    }
}
