// What all kernels share: element types, reductions, tensor-core products, asynchronous copies.
// Everything runs on compute capability 8.0 and later, and is compiled once for all.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// Elements to f32 and back, rounded to nearest even.
__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ float widen(bf16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float widen(f16 v) { return __half2float(v); }

template <typename T> __device__ __forceinline__ T narrow(float v);
template <> __device__ __forceinline__ float narrow<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float v) { return __float2bfloat16_rn(v); }
// The largest finite value in the place of what f16 cannot hold.
template <> __device__ __forceinline__ f16 narrow<f16>(float v) {
    return __float2half_rn(fminf(fmaxf(v, -65504.f), 65504.f));
}

// Two elements in one register, the first in the low half.
__device__ __forceinline__ float2 widen2(uint32_t v, bf16) {
    return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
__device__ __forceinline__ float2 widen2(uint32_t v, f16) {
    return __half22float2(*reinterpret_cast<__half2 *>(&v));
}
template <typename T> __device__ __forceinline__ uint32_t narrow2(float low, float high);
template <> __device__ __forceinline__ uint32_t narrow2<bf16>(float low, float high) {
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&v);
}
template <> __device__ __forceinline__ uint32_t narrow2<f16>(float low, float high) {
    __half2 v = __halves2half2(narrow<f16>(low), narrow<f16>(high));
    return *reinterpret_cast<uint32_t *>(&v);
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2) v += __shfl_xor_sync(ALL_LANES, v, lane);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, lane));
    return v;
}

// The sum over a block of at most 1024 threads, in every thread. `scratch` holds 32 values.
__device__ __forceinline__ float block_sum(float v, float *scratch) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    v = warp_sum(v);
    __syncthreads();
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    const int warps = (blockDim.x + WARP - 1) / WARP;
    return warp_sum(lane < warps ? scratch[lane] : 0.f);
}

// d += a b on tensor cores: a [16, 16] row-major, b [16, 8] column-major, d [16, 8] in f32, in the
// fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type").
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], f16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8x8 matrices of two-byte elements out of shared memory; each lane gives a row's address.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void *row) {
    const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}
// The same, each transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void *row) {
    const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
}

// 16 bytes from global to shared memory behind the thread's back; zeros where not `there`.
__device__ __forceinline__ void copy_async(void *to, const void *from, bool there = true) {
    const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }
// Waits until at most `LEFT` committed groups are under way.
template <int LEFT> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT));
}
