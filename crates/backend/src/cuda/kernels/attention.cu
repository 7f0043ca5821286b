// Attention on tensor cores: of images' positions to each other, and of a prompt over its cache.
// T is bf16 or f16 and names a kernel's end; the scale is 1 / sqrt(dim).
#include "attention.cuh"

// ---- Sequences: queries and keys in a line, each query sees keys up to a limit -----------------

constexpr int SEQUENCE_QUERIES = 64;  // Of a block: 16 a warp.

// Query i of block `block` sees the first `keys` keys, or with CAUSAL keys up to `first + i`.
template <typename T, int D, bool CAUSAL>
__device__ __forceinline__ void attend_sequence(const T *q, int q_stride, const T *k, const T *v, int kv_stride, T *out,
                                                int out_stride, int n, int keys, int first, int block) {
    constexpr int ROWS = 4096 / D, STEP = 32;
    Attend<T, D, 1> attend;
    const int lane = attend.lane, start = block * SEQUENCE_QUERIES + threadIdx.x / WARP * 16;
    const int row[2] = {start + lane / 4, start + lane / 4 + 8};
    const int seen = CAUSAL ? min(keys, first + (block + 1) * SEQUENCE_QUERIES) : keys;

    const auto fetch_rows = [&](auto rows, uint32_t to, Part part, int begin) {
        fetch<D, decltype(rows)::value, SEQUENCE_QUERIES * 2>(
            to, [&](int i) { return (part == KEYS ? k : v) + static_cast<int64_t>(min(begin + i, keys - 1)) * kv_stride; },
            [&](int i) { return begin + i < keys; });
    };
    const auto load = [&] {
        const auto query = [&](int r) { return row[r] < n ? q + static_cast<int64_t>(row[r]) * q_stride : nullptr; };
        attend.load(0, query(0), query(1));
    };
    const auto begin = [&](float (&s)[1][STEP / 8][4], int) {
#pragma unroll
        for (int i = 0; i < STEP / 2; ++i) s[0][i / 4][i % 4] = 0.f;
    };
    const auto finish = [&](float (&s)[1][STEP / 8][4], float (&bias)[1][1][2], int tile, int from) {
        bias[0][0][0] = bias[0][0][1] = 0.f;
        const int key = tile * ROWS + from;
        if (key + STEP <= (CAUSAL ? first + start + 1 : keys)) return;
#pragma unroll
        for (int i = 0; i < STEP / 2; ++i) {
            const int limit = CAUSAL ? first + row[i % 4 / 2] : keys - 1;
            if (key + i / 4 * 8 + lane % 4 * 2 + i % 2 > limit) s[0][i / 4][i % 4] = -INFINITY;
        }
    };
    attend_all<ROWS, STEP, 1>(attend, (seen + ROWS - 1) / ROWS, fetch_rows, load, begin, finish);
#pragma unroll
    for (int r = 0; r < 2; ++r)
        attend.store(0, r, row[r] < n ? out + static_cast<int64_t>(row[r]) * out_stride : nullptr);
}

// attention_T: every position sees all. Heads of 64.
//   grid (ceil(n / 64), heads, batch), block 128, 32768 bytes of dynamic shared memory
//   (const T *qkv [batch, n, 3, heads, 64], T *out [batch, n, heads, 64], int n)
template <typename T> __device__ __forceinline__ void attention(const T *qkv, T *out, int n) {
    const int width = gridDim.y * 64, head = blockIdx.y * 64;
    const int64_t page = static_cast<int64_t>(blockIdx.z) * n * width;
    const T *const q = qkv + 3 * page + head;
    attend_sequence<T, 64, false>(q, 3 * width, q + width, q + 2 * width, 3 * width, out + page + head, width, n, n, 0,
                                  blockIdx.x);
}

// causal_attention_D_T: the prompt's queries over a cache that holds their keys too. D is 64 or 128.
//   grid (heads, ceil(n / 64)), block 128, 32768 bytes of dynamic shared memory
//   (const T *q [n, heads, D], const T *k, const T *v [kv_heads, capacity, D], T *out [n, heads, D],
//    int n, int kv_heads, int capacity, const int *len: positions in the cache before these n)
template <typename T, int D>
__device__ __forceinline__ void causal_attention(const T *q, const T *k, const T *v, T *out, int n, int kv_heads, int capacity,
                                                 const int *len) {
    const int width = gridDim.x * D, head = blockIdx.x * D;
    const int64_t cache = static_cast<int64_t>(blockIdx.x / (gridDim.x / kv_heads)) * capacity * D;
    // The last queries see most keys: they go first.
    attend_sequence<T, D, true>(q + head, width, k + cache, v + cache, D, out + head, width, n, *len + n, *len,
                                gridDim.y - 1 - blockIdx.y);
}

// ---- Images: G x G positions with decomposed relative positions (Li et al., 2022) ---------------

// M: groups of 16 queries of a warp; BLOCKS: blocks meant to share a multiprocessor; ROWS: keys of a
// tile, of which STEP at a time.
template <int G> struct ImageTiles;
template <> struct ImageTiles<14> { static constexpr int M = 1, WARPS = 7, BLOCKS = 2, ROWS = 112, STEP = 16; };
template <> struct ImageTiles<32> { static constexpr int M = 1, WARPS = 4, BLOCKS = 3, ROWS = 64, STEP = 32; };
template <> struct ImageTiles<40> { static constexpr int M = 1, WARPS = 4, BLOCKS = 3, ROWS = 80, STEP = 80; };
template <> struct ImageTiles<64> {
    static constexpr int M = WARPGROUPS ? 1 : 2, WARPS = 8 / M, BLOCKS = 2, ROWS = WARPGROUPS ? 128 : 64, STEP = 32;
};
template <> struct ImageTiles<80> { static constexpr int M = 1, WARPS = 4, BLOCKS = 2, ROWS = 80, STEP = 80; };

// A lane's part of a row of 64 elements, for products in which the order of the sum is free.
template <typename T> __device__ __forceinline__ void load_halves(const T *row, uint4 (&to)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
        to[half] = reinterpret_cast<const uint4 *>(row)[half * 4 + threadIdx.x % 4];
}

// The bias of 16 queries for rows, or columns, j of the keys: to[j * stride] = 8 q · table[at - j + G - 1]
// for the queries of rows lane / 4 and, 8 elements on, lane / 4 + 8 of a fragment (8, as scores are
// scaled later). `at` are their own rows or columns, which lie between `least` and `least + SPREAD`.
template <typename T, int G, int SPREAD>
__device__ __forceinline__ void relative_bias(const uint4 (&q)[2][2], const T *table, const int (&at)[2], int least, float *to,
                                              int stride) {
    const int lane = threadIdx.x % WARP;
#pragma unroll 4
    for (int i = 0; i < G + SPREAD; i += 8) {
        uint4 t[2];
        load_halves(table + min(least + i + lane / 4, 2 * G - 2) * 64, t);
        float d[4] = {};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 a = q[0][half], a8 = q[1][half], b = t[half];
            mma(d, {a.x, a8.x, a.y, a8.y}, {b.x, b.y}, T());
            mma(d, {a.z, a8.z, a.w, a8.w}, {b.z, b.w}, T());
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int j = at[e / 2] + G - 1 - (least + i + lane % 4 * 2 + e % 2);
            if (j >= 0 && j < G) to[j * stride + e / 2 * 8] = d[e] * 8.f;
        }
    }
}

// Attention of the G x G positions from (top, left) on, of an image of height x width positions, to each
// other. With PADDED some may lie outside: there `padding` holds q, k and v.
template <typename T, int G, bool PADDED>
__device__ __forceinline__ void attend_image(const T *qkv, const T *padding, const T *table_height, const T *table_width, T *out,
                                             int height, int width, int top, int left) {
    using Tiles = ImageTiles<G>;
    constexpr int D = 64, M = Tiles::M, ROWS = Tiles::ROWS, STEP = Tiles::STEP, QUERIES = Tiles::WARPS * M * 16;
    constexpr int LINE = (G + 7) / 8 * 8;  // Lines of positions are filled up to whole fragments.
    constexpr int PART = STEP % LINE == 0 ? LINE : LINE % STEP == 0 ? STEP : 8;  // Keys of a step in one line.
    constexpr int LINES = STEP / PART;
    static_assert(G * LINE % ROWS == 0 && ROWS % LINE == 0 && ROWS % STEP == 0 && STEP % 16 == 0, "whole tiles");

    // For windows' steps of 16 keys that is slower.
    Attend<T, D, M, WARPGROUPS && Tiles::WARPS % 4 == 0> attend;
    const int lane = attend.lane, query = threadIdx.x / WARP * M * 16 + lane / 4, first = blockIdx.x * QUERIES + query;
    const int heads = gridDim.y * D, stride = 3 * heads;
    qkv += blockIdx.y * D;
    padding += blockIdx.y * D;
    float *const line_bias = reinterpret_cast<float *>(shared_memory) + TILE_BYTES<D, ROWS> * 2 / 4;  // [G, QUERIES]
    float columns[M][LINE / 8][4];  // The bias for columns, the same in all lines: scores begin with it.

    // Whether a place in the filled lines is a position, and where its q is; k and v follow that.
    const auto real = [&](int place) { return LINE == G || place % LINE < G; };
    const auto row = [&](int place) {
        place = min(place, G * LINE - 1);
        const int y = top + place / LINE, x = left + place % LINE;
        if (PADDED && (y >= height || x >= width)) return padding;
        return qkv + (PADDED ? y * width + x : place) * stride;
    };
    const auto fetch_rows = [&](auto rows, uint32_t to, Part part, int begin) {
        fetch<D, decltype(rows)::value, Tiles::WARPS * WARP>(
            to, [&](int i) { return row(begin + i) + (part == KEYS ? 1 : 2) * heads; },
            [&](int i) { return real(begin + i); });
    };
    const auto load = [&] {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const int at[2] = {first + m * 16, first + m * 16 + 8}, least = at[0] - lane / 4;
            const int y[2] = {at[0] / LINE, at[1] / LINE}, x[2] = {at[0] % LINE, at[1] % LINE};
            const T *const q[2] = {row(at[0]), row(at[1])};
            attend.load(m, q[0], q[1]);
            uint4 halves[2][2];
            load_halves(q[0], halves[0]);
            load_halves(q[1], halves[1]);
            constexpr bool ALIGNED = LINE % 16 == 0;  // 16 queries are of one line.
            float *const to = line_bias + query + m * 16;
            relative_bias<T, G, ALIGNED ? 15 : LINE - 1>(halves, table_width, x, ALIGNED ? least % LINE : 0, to, QUERIES);
            __syncwarp();
#pragma unroll
            for (int i = 0; i < LINE / 2; ++i) {
                const int j = i / 4 * 8 + lane % 4 * 2 + i % 2;
                columns[m][i / 4][i % 4] = j < G ? to[j * QUERIES + i % 4 / 2 * 8] : -INFINITY;
            }
            __syncwarp();
            relative_bias<T, G, ALIGNED ? 0 : 1>(halves, table_height, y, least / LINE, to, QUERIES);
            __syncwarp();
        }
    };
    const auto begin = [&](float (&s)[M][STEP / 8][4], int from) {
#pragma unroll
        for (int i = 0; i < M * STEP / 2; ++i) {
            const int m = i / (STEP / 2), n = i / 4 % (STEP / 8), e = i % 4;
            s[m][n][e] = columns[m][(from / 8 + n) % (LINE / 8)][e];
        }
    };
    const auto finish = [&](float (&)[M][STEP / 8][4], float (&bias)[LINES][M][2], int tile, int from) {
#pragma unroll
        for (int i = 0; i < LINES * M * 2; ++i) {
            const int line = i / (M * 2), m = i / 2 % M, r = i % 2;
            const int y = tile * (ROWS / LINE) + (from + line * PART) / LINE;
            bias[line][m][r] = line_bias[y * QUERIES + query + m * 16 + r * 8];
        }
    };
    attend_all<ROWS, STEP, LINES>(attend, G * LINE / ROWS, fetch_rows, load, begin, finish);
#pragma unroll
    for (int i = 0; i < M * 2; ++i) {
        const int at = first + i * 8, y = top + at / LINE, x = left + at % LINE;
        const bool there = real(at) && at < G * LINE && (!PADDED || (y < height && x < width));
        attend.store(i / 2, i % 2, there ? out + (y * width + x) * heads + blockIdx.y * D : nullptr);
    }
}

// attention_relG_T: all positions of a grid of G x G; G is 32, 40, 64 or 80. Heads of 64.
//   grid (G * G / 64, heads, batch), for G = 64 (32, heads, batch); block 128, but 256 for G = 64 with
//   warpgroups; dynamic shared memory 40960 bytes (G = 32), 51200 (40), 65536 (64), with warpgroups 98304,
//   or 61440 (80)
//   (const T *qkv [batch, G, G, 3, heads, 64], const T *table_height, const T *table_width [2 G - 1, 64],
//    T *out [batch, G, G, heads, 64])
template <typename T, int G>
__device__ __forceinline__ void attention_rel(const T *qkv, const T *table_height, const T *table_width, T *out) {
    const int64_t page = static_cast<int64_t>(blockIdx.z) * G * G * gridDim.y * 64;
    attend_image<T, G, false>(qkv + 3 * page, qkv, table_height, table_width, out + page, G, G, 0, 0);
}

// attention_window_T: windows of 14 x 14 of a grid that is padded at the right and bottom. Heads of 64.
//   grid (2, heads, batch * ceil(height / 14) * ceil(width / 14)), block 224, 63616 bytes of dynamic shared memory
//   (const T *qkv [batch, height, width, 3, heads, 64], const T *padding [3, heads, 64], const T *table_height,
//    const T *table_width [27, 64], T *out [batch, height, width, heads, 64], int height, int width)
template <typename T>
__device__ __forceinline__ void attention_window(const T *qkv, const T *padding, const T *table_height, const T *table_width, T *out,
                                                 int height, int width) {
    const int across = (width + 13) / 14, down = (height + 13) / 14, window = blockIdx.z;
    const int64_t page = static_cast<int64_t>(window / across / down) * height * width * gridDim.y * 64;
    attend_image<T, 14, true>(qkv + 3 * page, padding, table_height, table_width, out + page, height, width,
                              window / across % down * 14, window % across * 14);
}

// ---- Names for the launcher ----------------------------------------------------------------------

#define KERNEL(THREADS, BLOCKS) extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
#define IMAGE(G) KERNEL(ImageTiles<G>::WARPS * WARP, ImageTiles<G>::BLOCKS)

#define ATTENTION_REL(T, G)                                                                                            \
    IMAGE(G) attention_rel##G##_##T(const T *qkv, const T *table_height, const T *table_width, T *out) {               \
        attention_rel<T, G>(qkv, table_height, table_width, out);                                                      \
    }
#define CAUSAL_ATTENTION(T, D)                                                                                         \
    KERNEL(128, 1) causal_attention_##D##_##T(const T *q, const T *k, const T *v, T *out, int n, int kv_heads,         \
                                              int capacity, const int *len) {                                          \
        causal_attention<T, D>(q, k, v, out, n, kv_heads, capacity, len);                                              \
    }
#define ATTENTION(T)                                                                                                   \
    KERNEL(128, 1) attention_##T(const T *qkv, T *out, int n) { attention<T>(qkv, out, n); }                           \
    IMAGE(14) attention_window_##T(const T *qkv, const T *padding, const T *table_height, const T *table_width,        \
                                   T *out, int height, int width) {                                                    \
        attention_window<T>(qkv, padding, table_height, table_width, out, height, width);                              \
    }                                                                                                                  \
    ATTENTION_REL(T, 32)                                                                                               \
    ATTENTION_REL(T, 40)                                                                                               \
    ATTENTION_REL(T, 64)                                                                                               \
    ATTENTION_REL(T, 80)                                                                                               \
    CAUSAL_ATTENTION(T, 64)                                                                                            \
    CAUSAL_ATTENTION(T, 128)

ATTENTION(bf16)
ATTENTION(f16)
