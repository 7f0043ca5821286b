#!/usr/bin/env bash
# Runs tests, parity and benchmarks on a machine with an NVIDIA GPU, and prints what came of them:
#   run.sh [RESULTS]
# AGX_OCR_FULL_MODEL names the directory of a full-size model, AGX_OCR_FULL_DUMPS the reference's results
# for it; what needs them is skipped otherwise. ONLY=tests or ONLY=benches does half of it, SANITIZE=1
# adds compute-sanitizer's memcheck and racecheck.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
results=$(mkdir -p "${1:-$here/results}" && cd "${1:-$here/results}" && pwd)
only=${ONLY:-}
summary=()

say() { printf '%s\n' "$*" >&2; }

# Fixtures and the command lie where the tests were built, or a link leads there.
root=$(cat "$here/root")
[ -d "$root/fixtures" ] || { mkdir -p "$(dirname "$root")" && ln -sfn "$PWD" "$root"; }
[ -d "$root/fixtures" ] || { say "no fixtures in $root: start this in the folder that has them"; exit 2; }
command=$(cat "$here/command")
[ -x "$command" ] || { mkdir -p "$(dirname "$command")" && cp "$here/agx-ocr" "$command"; }

# step NAME SECONDS COMMAND...: its output goes to a file, its end into the table.
step() {
    local name=$1 limit=$2 started=$SECONDS how=ok
    shift 2
    if [ "$(type -t "$1")" = function ]; then ("$@"); else timeout "$limit" "$@"; fi \
        > "$results/$name.log" 2>&1 || how="FAILED ($?)"
    summary+=("$(printf '%-28s %-12s %4d s' "$name" "$how" $((SECONDS - started)))")
    say "${summary[-1]}"
}

# A GPU that is hidden is none: the list says so, and who asks for it gets an error.
hidden() {
    export CUDA_VISIBLE_DEVICES=
    "$here/agx-ocr" devices | tee /dev/stderr | grep -q 'hides it' || return 1
    "$here/agx-ocr" --device cuda --model-path fixtures/models/agx-ocr-mini < fixtures/pages/line-fox.png
    [ $? = 2 ]
}

# Races in own kernels. In cuBLAS's (nvjet), which signal each other in ways that the tool does not know, it
# finds some; and where it is told to leave them out, it fails.
races() {
    local found=$results/races.txt
    timeout 1800 compute-sanitizer --tool racecheck "$@" 2>&1 | tee "$found"
    grep -q '^test result: ok' "$found" && ! grep ' access at ' "$found" | grep -qv nvjet
}

skip() {
    summary+=("$(printf '%-28s skipped: %s' "$1" "$2")")
    say "${summary[-1]}"
}

"$here/agx-ocr" devices | tee "$results/devices.txt"
"$here/agx-ocr" devices --json > "$results/devices.json"

if [ "$only" != benches ]; then
    export AGX_OCR_TEST_DEVICE=cuda:0
    for elements in bf16 f16; do
        AGX_OCR_TEST_ELEMENTS=$elements step "parity-tiny-$elements" 120 "$here/tests/parity" tiny_bf16 --nocapture
        AGX_OCR_TEST_ELEMENTS=$elements step "parity-mini-$elements" 300 "$here/tests/parity" mini_reads --nocapture
    done
    step parity-tiny-f32 120 "$here/tests/parity" tiny_f32 --nocapture
    if [ -n "${AGX_OCR_FULL_MODEL:-}" ] && [ -n "${AGX_OCR_FULL_DUMPS:-}" ]; then
        step parity-full 300 "$here/tests/parity" full_size --nocapture
        AGX_OCR_TEST_ELEMENTS=f16 step parity-full-f16 300 "$here/tests/parity" full_size --nocapture
    else
        skip parity-full "AGX_OCR_FULL_MODEL or AGX_OCR_FULL_DUMPS is not set"
    fi
    for elements in bf16 f16; do
        AGX_OCR_TEST_ELEMENTS=$elements step "batches-$elements" 300 "$here/tests/batch"
        AGX_OCR_TEST_ELEMENTS=$elements step "pages-$elements" 300 "$here/tests/pages"
    done
    step kernels 300 "$here/tests/agx_ocr_backend" cuda
    step fallback 300 "$here/tests/contract" gpus
    step hidden 60 hidden
    if [ -n "${SANITIZE:-}" ]; then
        # The tiny checkpoint takes the kernels for any size, the mini one those on tensor cores. Kernels are
        # looked for in one module after the other, which is no error.
        check=(compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9)
        step memcheck-tiny 900 "${check[@]}" "$here/tests/parity" tiny_bf16
        step memcheck-mini 900 "${check[@]}" "$here/tests/batch" two_lines
        step racecheck-tiny 0 races "$here/tests/parity" tiny_bf16
        step racecheck-mini 0 races "$here/tests/batch" two_lines
    fi
fi

if [ "$only" != tests ]; then
    export CRITERION_HOME=$results/criterion
    for bench in batch page layers; do
        step "bench-$bench" 900 "$here/benches/$bench" --bench --noplot
    done
fi

{
    echo
    printf '%s\n' "${summary[@]}"
    echo
    # criterion's lines: a name, alone or with the first numbers.
    grep -h -A1 -E '^cuda_' "$results"/bench-*.log 2> /dev/null | grep -E 'cuda_|time:|thrpt:' | grep -v Benchmarking
} | tee "$results/summary.txt"
printf '%s\n' "${summary[@]}" | grep -q FAILED && exit 1
exit 0
