// Products of a warpgroup, four warps, which Hopper's tensor cores compute while the warps go on (PTX ISA,
// "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions"). Machine code for 9.0 alone can
// hold them, as sm_90a; all other code leaves them out.
#pragma once
#include "common.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool WARPGROUPS = true;
#define ON_HOPPER(...) __VA_ARGS__
#else
constexpr bool WARPGROUPS = false;
#define ON_HOPPER(...)
#endif

// What was written to registers is there for products, and what they write is theirs until they end.
__device__ __forceinline__ void begin_products() { ON_HOPPER(asm volatile("wgmma.fence.sync.aligned;" ::: "memory");) }
__device__ __forceinline__ void commit_products() { ON_HOPPER(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");) }
__device__ __forceinline__ void wait_products() { ON_HOPPER(asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");) }
// What this thread's copies brought to shared memory is there for products, behind the next barrier.
__device__ __forceinline__ void show_copies() { ON_HOPPER(asm volatile("fence.proxy.async.shared::cta;" ::: "memory");) }

// A matrix of rows of 128 bytes in shared memory, eight of which are 1024 bytes with chunks of 16 in
// swizzled places, as `place` has them. `address` is a multiple of 1024, or of 32 in the first row where
// the products' sums begin along the rows.
__device__ __forceinline__ uint64_t matrix_at(uint32_t address) {
    constexpr uint64_t SWIZZLED = 1ull << 62, EIGHT_ROWS = 1024 >> 4, UNUSED = 1;
    return (address & 0x3ffff) >> 4 | UNUSED << 16 | EIGHT_ROWS << 32 | SWIZZLED;
}

// Where the sums run in a matrix: along its rows, or down its columns.
enum Sums { ALONG_ROWS = 0, DOWN_COLUMNS = 1 };

// d += a b, for 16 rows of d [., 8 TILES] and a [., 16] a warp in fragments as of `mma`.
template <Sums SUMS, int TILES, typename T>
__device__ void multiply(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t b, T);

#define TILE(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define TILES_4 TILE(0), TILE(1), TILE(2), TILE(3)
#define TILES_8 TILES_4, TILE(4), TILE(5), TILE(6), TILE(7)
#define TILES_10 TILES_8, TILE(8), TILE(9)
#define NAMES_4 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_8 NAMES_4 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_10 NAMES_8 ",%32,%33,%34,%35,%36,%37,%38,%39"

// `A`, `B` and `S` name the operands behind those of the tiles.
#define MULTIPLY(T, t, COLUMNS, TILES, A, B, S)                                                                         \
    template <Sums SUMS> __device__ __forceinline__ void multiply(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t b, T) { \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32." #t "." #t " {" NAMES_##TILES "}, {" A "}, " B  \
                     ", 1, 1, 1, " S ";"                                                                                \
                     : TILES_##TILES                                                                                    \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(static_cast<int>(SUMS)));                \
    }
#define MULTIPLIES(T, t)                                                                                                \
    MULTIPLY(T, t, 32, 4, "%16,%17,%18,%19", "%20", "%21")                                                              \
    MULTIPLY(T, t, 64, 8, "%32,%33,%34,%35", "%36", "%37")                                                              \
    MULTIPLY(T, t, 80, 10, "%40,%41,%42,%43", "%44", "%45")
ON_HOPPER(MULTIPLIES(bf16, bf16) MULTIPLIES(f16, f16))
