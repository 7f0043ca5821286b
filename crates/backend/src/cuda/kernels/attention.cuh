// Attention: softmax(q kᵀ / sqrt(dim) + bias) v in one pass over the keys with an online softmax
// (Milakov and Gimelshein, 2018), without a matrix of all scores (Dao, FlashAttention-2, 2023).
//
// A warp keeps 16 M queries, their outputs and their softmax in registers; the block's warps share
// tiles of keys and values, which arrive in shared memory one ahead. On Hopper four warps multiply together.
#pragma once
#include "warpgroup.cuh"

constexpr float LOG2_E = 1.4426950408889634f;
// Exponentials are taken relative to a score that may lag behind the largest so far by this much
// in base 2. So outputs seldom have to be rescaled, and exponentials still fit f16.
constexpr float SLACK = 8.f;

__device__ __forceinline__ float exp2_approx(float v) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

// Probabilities as factors: narrow2 less the check for what f16 cannot hold.
__device__ __forceinline__ uint32_t pack(float low, float high, bf16) { return narrow2<bf16>(low, high); }
__device__ __forceinline__ uint32_t pack(float low, float high, f16) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

// The largest value, or the sum, over the four lanes that share a row of a fragment.
__device__ __forceinline__ float row_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 1));
    return fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 2));
}
__device__ __forceinline__ float row_sum(float v) {
    v += __shfl_xor_sync(ALL_LANES, v, 1);
    return v + __shfl_xor_sync(ALL_LANES, v, 2);
}

// Addresses in shared memory are plain numbers here, of bytes: constants added to them cost nothing.
__device__ __forceinline__ uint32_t shared_address(const void *at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row));
}
__device__ __forceinline__ void copy_async(uint32_t to, const void *from, bool there) {
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}

// Where a tile of rows of D two-byte elements has a row's 16-byte chunk: mixed so that eight rows'
// equal chunks lie in different banks.
template <int D> __device__ __forceinline__ uint32_t place(uint32_t row, uint32_t chunk) {
    return row * D * 2 + (chunk ^ row % 8) * 16;
}

// Has THREADS threads copy ROWS rows of D elements: row(i) is where row i lies; zeros unless there(i).
template <int D, int ROWS, int THREADS, typename Row, typename There>
__device__ __forceinline__ void fetch(uint32_t tile, Row row, There there) {
    constexpr uint32_t CHUNKS = D / 8, ALL = ROWS * CHUNKS;
#pragma unroll
    for (uint32_t j = 0; j < (ALL + THREADS - 1) / THREADS; ++j) {
        const uint32_t i = j * THREADS + threadIdx.x;
        if (ALL % THREADS && i >= ALL) break;
        copy_async(tile + place<D>(i / CHUNKS, i % CHUNKS), row(i / CHUNKS) + i % CHUNKS * 8, there(i / CHUNKS));
    }
}

// 16 M queries of a warp and what they have seen. Index [m][..][e] is a fragment's: e / 2 chooses
// between rows lane / 4 and lane / 4 + 8 of queries 16 m to 16 m + 15. With GROUPED four warps multiply
// together, heads of 64.
template <typename T, int D, int M, bool GROUPED = false> struct Attend {
    const float scale = rsqrtf(D) * LOG2_E;  // From q · k to exponents of two.
    const unsigned lane = threadIdx.x % WARP;
    uint32_t q[M][D / 16][4];
    float o[M][D / 8][4] = {};
    float reference[M][2], sum[M][2] = {};

    // Takes rows of q (null for none) as rows lane / 4 and lane / 4 + 8 of fragment m.
    __device__ __forceinline__ void load(int m, const T *row, const T *row8) {
#pragma unroll
        for (int k = 0; k < D / 16; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const T *from = i % 2 ? row8 : row;
                const int at = k * 16 + i / 2 * 8 + lane % 4 * 2;
                q[m][k][i] = from ? *reinterpret_cast<const uint32_t *>(from + at) : 0;
            }
        reference[m][0] = reference[m][1] = -INFINITY;
    }

    // s += q kᵀ for the KEYS keys of a tile from `first` on; with GROUPED begun, and there once the next
    // values are absorbed.
    template <int KEYS> __device__ __forceinline__ void scores(float (&s)[M][KEYS / 8][4], uint32_t tile, int first) {
        if constexpr (GROUPED) {
            begin_products();
#pragma unroll
            for (int k = 0; k < D / 16; ++k)
#pragma unroll
                for (int m = 0; m < M; ++m) multiply<ALONG_ROWS>(s[m], q[m][k], matrix_at(tile + first * D * 2 + k * 32), T());
            commit_products();
        } else
#pragma unroll
        for (int k = 0; k < D / 16; ++k)
#pragma unroll
            for (int n = 0; n < KEYS / 16; ++n) {
                uint32_t r[4];
                load_matrices(r, tile + place<D>(lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2) + (first + n * 16) * D * 2);
                const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma(s[m][2 * n], q[m][k], b[0], T());
                    mma(s[m][2 * n + 1], q[m][k], b[1], T());
                }
            }
    }

    // Sees to it that exponentials of s + bias will not be too large. The scores are of LINES equal
    // parts with a bias for each query.
    template <int KEYS, int LINES>
    __device__ __forceinline__ void settle(const float (&s)[M][KEYS / 8][4], const float (&bias)[LINES][M][2]) {
        constexpr int PART = KEYS / 8 / LINES;
        float top[M][2];
        bool rises = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
#pragma unroll
                for (int line = 0; line < LINES; ++line) {
                    float high = s[m][line * PART][2 * r];
#pragma unroll
                    for (int i = 1; i < PART * 2; ++i) high = fmaxf(high, s[m][line * PART + i / 2][2 * r + i % 2]);
                    high += bias[line][m][r];
                    top[m][r] = line ? fmaxf(top[m][r], high) : high;
                }
                rises |= (top[m][r] - reference[m][r]) * scale > SLACK;
            }
        if (__any_sync(ALL_LANES, rises)) rescale(top);
    }

    // o += exp(s + bias) v, for the values of a tile from `first` on.
    template <int KEYS, int LINES>
    __device__ __forceinline__ void absorb(float (&s)[M][KEYS / 8][4], const float (&bias)[LINES][M][2], uint32_t tile, int first) {
        constexpr int PART = KEYS / 8 / LINES;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const float shift = (bias[n / PART][m][e / 2] - reference[m][e / 2]) * scale;
                    s[m][n][e] = exp2_approx(fmaf(s[m][n][e], scale, shift));
                    sum[m][e / 2] += s[m][n][e];
                }
        uint32_t p[KEYS / 16][M][4];
#pragma unroll
        for (int i = 0; i < KEYS / 16 * M * 4; ++i) {
            const int k = i / 4 / M, m = i / 4 % M;
            const float *pair = s[m][2 * k + i % 4 / 2] + i % 2 * 2;
            p[k][m][i % 4] = pack(pair[0], pair[1], T());
        }
        if constexpr (GROUPED) {
            begin_products();
#pragma unroll
            for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
                for (int m = 0; m < M; ++m) multiply<DOWN_COLUMNS>(o[m], p[k][m], matrix_at(tile + (first + k * 16) * D * 2), T());
            commit_products();
            wait_products();
        } else
#pragma unroll
        for (int k = 0; k < KEYS / 16; ++k)
#pragma unroll
            for (int d = 0; d < D / 16; ++d) {
                uint32_t r[4];
                load_matrices_transposed(r, tile + place<D>(lane % 16, 2 * d + lane / 16) + (first + k * 16) * D * 2);
                const uint32_t b[2][2] = {{r[0], r[1]}, {r[2], r[3]}};
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    mma(o[m][2 * d], p[k][m], b[0], T());
                    mma(o[m][2 * d + 1], p[k][m], b[1], T());
                }
            }
    }

    // Makes exponentials relative to the largest score so far.
    __device__ __forceinline__ void rescale(const float (&top)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float next = fmaxf(reference[m][r], row_max(top[m][r]));
                const float factor = exp2_approx((reference[m][r] - next) * scale);
                reference[m][r] = next;
                sum[m][r] *= factor;
#pragma unroll
                for (int d = 0; d < D / 8; ++d) {
                    o[m][d][2 * r] *= factor;
                    o[m][d][2 * r + 1] *= factor;
                }
            }
    }

    // Writes the outputs of row lane / 4 (r = 0) or lane / 4 + 8 (r = 1), unless `to` is null.
    __device__ __forceinline__ void store(int m, int r, T *to) {
        const float factor = 1.f / row_sum(sum[m][r]);
        if (to == nullptr) return;
#pragma unroll
        for (int d = 0; d < D / 8; ++d) {
            const uint32_t pair = narrow2<T>(o[m][d][2 * r] * factor, o[m][d][2 * r + 1] * factor);
            *reinterpret_cast<uint32_t *>(to + d * 8 + lane % 4 * 2) = pair;
        }
    }
};

extern __shared__ __align__(1024) uint4 shared_memory[];

template <int N> struct Count { static constexpr int value = N; };

template <int D, int ROWS> constexpr int TILE_BYTES = ROWS * D * 4;  // Keys and values.

enum Part { KEYS, VALUES };

// Lets queries see `count` tiles of ROWS keys, of which STEP at a time, in LINES equal parts with biases.
//   fetch_rows<N>(address, part, first) begins to copy rows from `first` on, as many as N says
//   load() readies the queries
//   begin(s, from) sets what scores of a tile's keys from `from` on begin with
//   finish(s, bias, tile, from) makes scores that may not be seen -infinity and sets biases
//
// Tiles lie in two places by turns: one arrives while the other is in use. The keys of a tile run a step
// ahead of its values: the next scores are made while the exponentials of the last are.
template <int ROWS, int STEP, int LINES, typename T, int D, int M, bool GROUPED, typename Fetch, typename Load, typename Begin,
          typename Finish>
__device__ __forceinline__ void attend_all(Attend<T, D, M, GROUPED> &attend, int count, Fetch fetch_rows, Load load, Begin begin,
                                           Finish finish) {
    constexpr int TILE = TILE_BYTES<D, ROWS>;
    const uint32_t tiles = shared_address(shared_memory);
    const auto fetch_tile = [&](int tile) {
        const uint32_t to = tiles + tile % 2 * TILE;
        fetch_rows(Count<ROWS>(), to, KEYS, tile * ROWS + STEP);
        fetch_rows(Count<ROWS>(), to + TILE / 2, VALUES, tile * ROWS);
        commit_copies();
    };
    fetch_rows(Count<STEP>(), tiles + TILE, KEYS, 0);
    commit_copies();
    fetch_tile(0);
    load();

    float s[M][STEP / 8][4], next[M][STEP / 8][4], bias[LINES][M][2];
    wait_copies<1>();
    if constexpr (GROUPED) show_copies();
    __syncthreads();
    begin(next, 0);
    attend.template scores<STEP>(next, tiles + TILE, 0);
    if constexpr (GROUPED) wait_products();
    for (int tile = 0; tile < count; ++tile) {
        wait_copies<0>();
        if constexpr (GROUPED) show_copies();
        __syncthreads();
        if (tile + 1 < count) fetch_tile(tile + 1);
        const uint32_t keys = tiles + tile % 2 * TILE, values = keys + TILE / 2;
#pragma unroll
        for (int from = 0; from < ROWS; from += STEP) {
#pragma unroll
            for (int i = 0; i < M * STEP / 2; ++i) {
                const int m = i / (STEP / 2), n = i / 4 % (STEP / 8), e = i % 4;
                s[m][n][e] = next[m][n][e];
            }
            finish(s, bias, tile, from);
            attend.template settle<STEP>(s, bias);
            begin(next, from + STEP);
            attend.template scores<STEP>(next, keys, from);
            attend.template absorb<STEP>(s, bias, values, from);
        }
    }
}
