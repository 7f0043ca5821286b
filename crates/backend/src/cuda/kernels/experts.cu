// A mixture of experts (Shazeer et al., 2017) with shared experts (DeepSeekMoE, Dai et al., 2024)
// for many rows: x += sum of the chosen experts' outputs times their weights + shared outputs.
//
// A shared expert of `shared * inner` counts as `shared` experts of `inner` whose outputs are
// added: they stand behind the routed ones as groups `experts..experts + shared`. Each row has
// `slots = k + shared` outputs; `pair = row * slots + slot` names one of them. Pairs are sorted by
// group, and each group is cut into tiles of rows that read its weights together. Floats are not
// added by atomics: the same input gives the same bits.
#include "common.cuh"

namespace {

__device__ __forceinline__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
__device__ __forceinline__ float silu(float v) { return v / (1.f + expf(-v)); }

__device__ __forceinline__ float4 widen4(const float *from) { return *reinterpret_cast<const float4 *>(from); }
template <typename T> __device__ __forceinline__ float4 widen4(const T *from) {
    const uint2 v = *reinterpret_cast<const uint2 *>(from);
    const float2 low = widen2(v.x, T()), high = widen2(v.y, T());
    return make_float4(low.x, low.y, high.x, high.y);
}
__device__ __forceinline__ void narrow4(float *to, float4 v) { *reinterpret_cast<float4 *>(to) = v; }
template <typename T> __device__ __forceinline__ void narrow4(T *to, float4 v) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(narrow2<T>(v.x, v.y), narrow2<T>(v.z, v.w));
}
__device__ __forceinline__ float dot(float4 a, float4 b) {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

// ---- Routing

constexpr int SCORED = 4; // experts that a warp scores together

// How many rows a block routes, and by how many warps.
template <int ROWS_, int WARPS_> struct Router {
    static constexpr int ROWS = ROWS_, WARPS = WARPS_, THREADS = WARPS * WARP;
};
using RouteMany = Router<4, 8>;
using RouteFew = Router<1, 16>;

// Of one row's scores the `k` most probable by softmax, of equals the lower first; by one warp.
__device__ void choose(float *scores, int experts, int k, int *ids, float *weights) {
    const int lane = threadIdx.x % WARP;
    float most = -INFINITY, sum = 0.f;
    for (int e = lane; e < experts; e += WARP) most = fmaxf(most, scores[e]);
    most = warp_max(most);
    for (int e = lane; e < experts; e += WARP) sum += scores[e] = expf(scores[e] - most);
    sum = warp_sum(sum);
    // Probabilities, not scores, decide: different scores may have equal probabilities.
    for (int e = lane; e < experts; e += WARP) scores[e] /= sum;
    for (int slot = 0; slot < k; slot++) {
        float best = -1.f;
        int expert = 0;
        for (int e = lane; e < experts; e += WARP) {
            if (scores[e] > best) best = scores[e], expert = e;
        }
        // Bits of floats that are not below 0 are in the order of the floats.
        const int bits = __float_as_int(best), top = __reduce_max_sync(ALL_LANES, bits);
        expert = __reduce_min_sync(ALL_LANES, bits == top ? expert : experts - 1);
        if (lane == expert % WARP) {
            ids[slot] = expert;
            weights[slot] = __int_as_float(top);
            scores[expert] = -1.f; // chosen
        }
    }
}

// RMSNorm of some rows of x, and the choice of experts from it, all in f32: a rounded score may
// choose another expert. The router's weights are read once for all the block's rows.
template <typename T, class R>
__device__ __forceinline__ void route(const float *x, const T *norm, const T *router, T *xn, int *ids, float *weights,
                                      int rows, int hidden, int experts, int k, float epsilon) {
    extern __shared__ __align__(128) unsigned char memory[];
    float *normed = reinterpret_cast<float *>(memory), *scores = normed + R::ROWS * hidden;
    __shared__ float squares[R::WARPS];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first = blockIdx.x * R::ROWS, count = min(R::ROWS, rows - first);

    // Several warps norm a row. Rows beyond the last are copies of it, and not written.
    constexpr int SHARE = R::WARPS / R::ROWS;
    const int r = warp / SHARE, begin = (warp % SHARE * WARP + lane) * 4;
    const size_t row = static_cast<size_t>(first + min(r, count - 1)) * hidden;
    float sum = 0.f;
#pragma unroll 4
    for (int i = begin; i < hidden; i += SHARE * WARP * 4) {
        const float4 v = widen4(x + row + i);
        *reinterpret_cast<float4 *>(normed + r * hidden + i) = v;
        sum += dot(v, v);
    }
    sum = warp_sum(sum);
    if (lane == 0) squares[warp] = sum;
    __syncthreads();
    sum = 0.f;
    for (int i = 0; i < SHARE; i++) sum += squares[r * SHARE + i];
    const float scale = 1.f / sqrtf(sum / hidden + epsilon);
#pragma unroll 4
    for (int i = begin; i < hidden; i += SHARE * WARP * 4) {
        float4 *at = reinterpret_cast<float4 *>(normed + r * hidden + i);
        const float4 v = *at, w = widen4(norm + i);
        *at = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
        if (r < count) narrow4(xn + row + i, *at);
    }
    __syncthreads();

    for (int e = warp * SCORED; e < experts; e += R::WARPS * SCORED) {
        float sums[SCORED][R::ROWS] = {};
#pragma unroll 2
        for (int i = lane * 4; i < hidden; i += WARP * 4) {
            float4 w[SCORED];
#pragma unroll
            for (int j = 0; j < SCORED; j++) w[j] = widen4(router + min(e + j, experts - 1) * hidden + i);
#pragma unroll
            for (int r = 0; r < R::ROWS; r++) {
                const float4 v = widen4(normed + r * hidden + i);
#pragma unroll
                for (int j = 0; j < SCORED; j++) sums[j][r] += dot(v, w[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < SCORED; j++) {
#pragma unroll
            for (int r = 0; r < R::ROWS; r++) {
                const float score = warp_sum(sums[j][r]);
                if (lane == 0 && e + j < experts) scores[r * experts + e + j] = score;
            }
        }
    }
    __syncthreads();

    for (int r = warp; r < count; r += R::WARPS) {
        const size_t at = static_cast<size_t>(first + r) * k;
        choose(scores + r * experts, experts, k, ids + at, weights + at);
    }
}

// ---- Grouping

constexpr int GROUP_WARPS = WARP; // a lane sums what a warp counted

// Rows of one group: sorted pairs `first..first + count`. A count of 0 marks a surplus tile.
struct alignas(16) Tile {
    int group, first, count, unused; // 16 bytes: one load
};

// Cuts a group's pairs `first..first + count` into tiles, the first of them `tile`.
__device__ __forceinline__ void cut(Tile *tiles, int tile, int group, int first, int count, int tile_rows) {
    for (int i = threadIdx.x; i * tile_rows < count; i += blockDim.x) {
        tiles[tile + i] = {group, first + i * tile_rows, min(tile_rows, count - i * tile_rows), 0};
    }
}

} // namespace

// Sorts pairs by group, stably, and cuts groups into tiles of at most `tile_rows`; a block for
// each group. Shared experts come first: their tiles are full, and short ones even out the end.
extern "C" __global__ void __launch_bounds__(GROUP_WARPS *WARP)
    group_rows(const int *ids, int *order, Tile *tiles, int rows, int k, int experts, int shared, int tile_rows,
               int tile_limit) {
    const int group = blockIdx.x, slots = k + shared, shared_cuts = ceil_div(rows, tile_rows);
    if (group >= experts) {
        const int s = group - experts;
        for (int row = threadIdx.x; row < rows; row += blockDim.x) order[s * rows + row] = row * slots + k + s;
        cut(tiles, s * shared_cuts, group, s * rows, rows, tile_rows);
        return;
    }

    // Each warp counts and later places one part of the choices.
    extern __shared__ int sums[]; // choices of each expert
    __shared__ int found[GROUP_WARPS];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, choices = rows * k;
    const int part = ceil_div(choices, GROUP_WARPS * WARP) * WARP;
    const int begin = warp * part, end = min(choices, begin + part);
    for (int e = threadIdx.x; e < experts; e += blockDim.x) sums[e] = 0;
    __syncthreads();
    int count = 0;
    for (int i = begin + lane; i < end; i += WARP) {
        const int expert = ids[i];
        atomicAdd(sums + expert, 1);
        count += expert == group;
    }
    count = __reduce_add_sync(ALL_LANES, count);
    if (lane == 0) found[warp] = count;
    __syncthreads();

    int place = lane < warp ? found[lane] : 0, first = 0, tile = 0;
    for (int e = lane; e < group; e += WARP) {
        first += sums[e];
        tile += ceil_div(sums[e], tile_rows);
    }
    first = __reduce_add_sync(ALL_LANES, first) + shared * rows;
    tile = __reduce_add_sync(ALL_LANES, tile) + shared * shared_cuts;
    place = __reduce_add_sync(ALL_LANES, place) + first;
    cut(tiles, tile, group, first, sums[group], tile_rows);
    if (group == experts - 1) {
        const int used = tile + ceil_div(sums[group], tile_rows);
        for (int i = used + threadIdx.x; i < tile_limit; i += blockDim.x) tiles[i] = {};
    }
    for (int at = begin; at < end; at += WARP) {
        const int choice = at + lane;
        const bool chosen = choice < end && ids[choice] == group;
        const unsigned all = __ballot_sync(ALL_LANES, chosen);
        if (chosen) order[place + __popc(all & ((1u << lane) - 1))] = choice + choice / k * shared;
        place += __popc(all);
    }
}

namespace {

// ---- Grouped products. Blocks (columns, tile): those at work together read whole rows of weights.

constexpr int CHUNK = 8; // elements of one 16-byte copy

// `copy_async` that also brings the 256 bytes around into the L2 cache: the next steps' parts of
// the row, by fewer and longer reads of memory.
__device__ __forceinline__ void copy_ahead(void *to, const void *from, bool there) {
    const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes));
}

// How a block of WARPS_M x WARPS_N warps computes a tile of ROWS x COLUMNS, DEPTH elements of the
// summed dimension in a stage.
template <int ROWS_, int COLUMNS_, int WARPS_M_, int WARPS_N_, int DEPTH_, int STAGES_, int BLOCKS_> struct Shape {
    static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int DEPTH = DEPTH_, STAGES = STAGES_, BLOCKS = BLOCKS_; // blocks at once on a multiprocessor
    static constexpr int THREADS = WARPS_M * WARPS_N * WARP;
    static constexpr int M = ROWS / 16 / WARPS_M, N = COLUMNS / 8 / WARPS_N; // a warp's fragments
    static constexpr int CHUNKS = DEPTH / CHUNK, LINES = THREADS / CHUNKS;   // rows copied at once
    static constexpr int A_COPIES = ROWS / LINES, B_COPIES = COLUMNS / LINES;
    static constexpr int STAGE = (ROWS + COLUMNS) * DEPTH;
    static_assert(CHUNKS >= 8, "eight rows' chunks in different banks");
    static_assert(A_COPIES > 0 && LINES % 16 == 0, "a thread copies rows of gate only, or of up only");

    // Where a chunk of a row lies in a stage, such that those of eight rows are in different banks.
    static __device__ __forceinline__ int swizzled(int row, int chunk) {
        return row * DEPTH + (chunk ^ row % 8) * CHUNK;
    }
};
using Many = Shape<128, 128, 2, 4, 64, 3, 2>; // 96 KiB of shared memory
using Few = Shape<16, 128, 1, 4, 64, 4, 3>;   // 72 KiB: as many bytes of weights under way as fit

// What this thread copies of both factors. Places of rows and columns beyond the tile stay as
// they are: what is computed from them is not stored.
template <typename T, class S> struct Operands {
    const T *a;
    int a_rows[S::A_COPIES]; // where its rows of `a` begin; -1: beyond the tile
    const T *b;              // its first row of `b`, of `b_count`
    int b_count;
    size_t b_stride;
    int depth;

    __device__ __forceinline__ void copy(T *stage, int step) const {
        const int line = threadIdx.x / S::CHUNKS, chunk = threadIdx.x % S::CHUNKS;
        const int at = step * S::DEPTH + chunk * CHUNK;
        const bool there = at < depth;
#pragma unroll
        for (int i = 0; i < S::A_COPIES; i++) {
            if (a_rows[i] >= 0) {
                copy_ahead(stage + S::swizzled(i * S::LINES + line, chunk), there ? a + a_rows[i] + at : a, there);
            }
        }
#pragma unroll
        for (int i = 0; i < S::B_COPIES; i++) {
            T *to = stage + S::swizzled(S::ROWS + i * S::LINES + line, chunk);
            if (i < b_count) copy_ahead(to, there ? b + i * b_stride + at : b, there);
        }
    }
};

// The rows and columns of the tile where this thread's fragments begin.
template <class S> struct Place {
    const int m = threadIdx.x / WARP / S::WARPS_N, n = threadIdx.x / WARP % S::WARPS_N, lane = threadIdx.x % WARP;
    __device__ __forceinline__ int row(int i) const { return (i * S::WARPS_M + m) * 16; }
    __device__ __forceinline__ int column(int j) const { return (n * S::N + j) * 8; }
};

// sums = a bᵀ for the `count` rows of a tile, through a pipeline of asynchronous copies. Of
// `FRAGMENTS` a warp computes only as many as the block needs.
template <typename T, class S, int FRAGMENTS = S::M>
__device__ __forceinline__ void multiply(const Operands<T, S> &of, int count, float (&sums)[S::M][S::N][4]) {
    if constexpr (FRAGMENTS > 1) {
        if (count <= (FRAGMENTS - 1) * S::WARPS_M * 16) return multiply<T, S, FRAGMENTS - 1>(of, count, sums);
    }
    extern __shared__ __align__(128) unsigned char memory[];
    T *stages = reinterpret_cast<T *>(memory);
    const Place<S> place;
    const int lane = place.lane, steps = ceil_div(of.depth, S::DEPTH);
    for (int step = 0; step < S::STAGES - 1; step++) {
        if (step < steps) of.copy(stages + step * S::STAGE, step);
        commit_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_copies<S::STAGES - 2>();
        __syncthreads();
        const int next = step + S::STAGES - 1;
        if (next < steps) of.copy(stages + next % S::STAGES * S::STAGE, next);
        commit_copies();

        const T *a = stages + step % S::STAGES * S::STAGE, *b = a + S::ROWS * S::DEPTH;
#pragma unroll
        for (int k = 0; k < S::DEPTH / 16; k++) {
            uint32_t rows[FRAGMENTS][4], columns[S::N / 2][2][2];
#pragma unroll
            for (int i = 0; i < FRAGMENTS; i++) {
                load_matrices(rows[i], a + S::swizzled(place.row(i) + lane % 16, 2 * k + lane / 16));
            }
#pragma unroll
            for (int j = 0; j < S::N / 2; j++) {
                const int column = place.column(2 * j) + lane / 16 * 8 + lane % 8;
                uint32_t r[4];
                load_matrices(r, b + S::swizzled(column, 2 * k + lane / 8 % 2));
                columns[j][0][0] = r[0], columns[j][0][1] = r[1];
                columns[j][1][0] = r[2], columns[j][1][1] = r[3];
            }
#pragma unroll
            for (int i = 0; i < FRAGMENTS; i++) {
#pragma unroll
                for (int j = 0; j < S::N; j++) mma(sums[i][j], rows[i], columns[j / 2][j % 2], T());
            }
        }
    }
}

// h = silu(gate xn) * (up xn) for a tile's rows and `COLUMNS / 2` columns. Eight rows of gate
// alternate with eight of up, so that a thread holds both values of an element of h.
template <class S, typename T>
__device__ __forceinline__ void gate_up(const T *xn, const T *gate, const T *up, const int *order, Tile tile, T *h,
                                        int hidden, int inner, int slots) {
    const int line = threadIdx.x / S::CHUNKS, first = blockIdx.x * (S::COLUMNS / 2);
    const int column = first + line / 16 * 8 + line % 8;
    Operands<T, S> of;
    of.a = xn;
#pragma unroll
    for (int i = 0; i < S::A_COPIES; i++) {
        const int row = i * S::LINES + line;
        of.a_rows[i] = row < tile.count ? order[tile.first + row] / slots * hidden : -1;
    }
    of.b = (line / 8 % 2 ? up : gate) + static_cast<size_t>(column) * hidden;
    of.b_count = ceil_div(max(inner - column, 0), S::LINES / 2);
    of.b_stride = static_cast<size_t>(S::LINES / 2) * hidden;
    of.depth = hidden;
    float sums[S::M][S::N][4] = {};
    multiply(of, tile.count, sums);

    const Place<S> place;
#pragma unroll
    for (int i = 0; i < S::M; i++) {
#pragma unroll
        for (int j = 0; j < S::N; j += 2) {
            const int column = first + place.column(j) / 2 + place.lane % 4 * 2;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = place.row(i) + half * 8 + place.lane / 4;
                const float *g = sums[i][j] + 2 * half, *u = sums[i][j + 1] + 2 * half;
                if (row < tile.count && column < inner) {
                    T *to = h + static_cast<size_t>(tile.first + row) * inner + column;
                    *reinterpret_cast<uint32_t *>(to) = narrow2<T>(silu(g[0]) * u[0], silu(g[1]) * u[1]);
                }
            }
        }
    }
}

// y[pair] = down h for a tile's rows and `COLUMNS` columns; rows of `down` are `stride` apart.
template <class S, typename T>
__device__ __forceinline__ void down_product(const T *h, const T *down, const int *order, Tile tile, float *y,
                                             int hidden, int inner, int stride) {
    const int line = threadIdx.x / S::CHUNKS, first = blockIdx.x * S::COLUMNS, column = first + line;
    Operands<T, S> of;
    of.a = h;
#pragma unroll
    for (int i = 0; i < S::A_COPIES; i++) {
        const int row = i * S::LINES + line;
        of.a_rows[i] = row < tile.count ? (tile.first + row) * inner : -1;
    }
    of.b = down + static_cast<size_t>(column) * stride;
    of.b_count = ceil_div(max(hidden - column, 0), S::LINES);
    of.b_stride = static_cast<size_t>(S::LINES) * stride;
    of.depth = inner;
    float sums[S::M][S::N][4] = {};
    multiply(of, tile.count, sums);

    const Place<S> place;
#pragma unroll
    for (int i = 0; i < S::M; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = place.row(i) + half * 8 + place.lane / 4;
            if (row >= tile.count) break;
            float *to = y + static_cast<size_t>(order[tile.first + row]) * hidden;
#pragma unroll
            for (int j = 0; j < S::N; j++) {
                const int column = first + place.column(j) + place.lane % 4 * 2;
                const float *v = sums[i][j] + 2 * half;
                if (column < hidden) *reinterpret_cast<float2 *>(to + column) = make_float2(v[0], v[1]);
            }
        }
    }
}

// The two products in f32, for comparisons of values rather than speed: a warp sums each element.
__device__ __forceinline__ float warp_dot(const float *a, const float *b, int size) {
    float sum = 0.f;
    for (int i = threadIdx.x % WARP * 4; i < size; i += WARP * 4) sum += dot(widen4(a + i), widen4(b + i));
    return warp_sum(sum);
}

template <class S>
__device__ __forceinline__ void gate_up(const float *xn, const float *gate, const float *up, const int *order,
                                        Tile tile, float *h, int hidden, int inner, int slots) {
    const int first = blockIdx.x * (S::COLUMNS / 2), end = min(inner, first + S::COLUMNS / 2);
    for (int column = first + threadIdx.x / WARP; column < end; column += blockDim.x / WARP) {
        for (int at = tile.first; at < tile.first + tile.count; at++) {
            const float *row = xn + static_cast<size_t>(order[at] / slots) * hidden;
            const float g = warp_dot(row, gate + static_cast<size_t>(column) * hidden, hidden);
            const float u = warp_dot(row, up + static_cast<size_t>(column) * hidden, hidden);
            if (threadIdx.x % WARP == 0) h[static_cast<size_t>(at) * inner + column] = silu(g) * u;
        }
    }
}

template <class S>
__device__ __forceinline__ void down_product(const float *h, const float *down, const int *order, Tile tile, float *y,
                                             int hidden, int inner, int stride) {
    const int first = blockIdx.x * S::COLUMNS, end = min(hidden, first + S::COLUMNS);
    for (int column = first + threadIdx.x / WARP; column < end; column += blockDim.x / WARP) {
        for (int at = tile.first; at < tile.first + tile.count; at++) {
            const float *row = h + static_cast<size_t>(at) * inner;
            const float v = warp_dot(row, down + static_cast<size_t>(column) * stride, inner);
            if (threadIdx.x % WARP == 0) y[static_cast<size_t>(order[at]) * hidden + column] = v;
        }
    }
}

} // namespace

// x[row] += sum of weight * y over the row's slots, in their order; shared experts weigh 1.
extern "C" __global__ void combine_rows(const float *y, const float *weights, float *x, int hidden, int k, int shared) {
    const int row = blockIdx.x, slots = k + shared;
    const float *from = y + static_cast<size_t>(row) * slots * hidden;
    for (int i = threadIdx.x * 4; i < hidden; i += blockDim.x * 4) {
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
        for (int slot = 0; slot < slots; slot++) {
            const float weight = slot < k ? weights[row * k + slot] : 1.f;
            const float4 v = widen4(from + static_cast<size_t>(slot) * hidden + i);
            sum.x += weight * v.x, sum.y += weight * v.y, sum.z += weight * v.z, sum.w += weight * v.w;
        }
        float4 *to = reinterpret_cast<float4 *>(x + static_cast<size_t>(row) * hidden + i);
        const float4 v = *to;
        *to = make_float4(v.x + sum.x, v.y + sum.y, v.z + sum.z, v.w + sum.w);
    }
}

#define ROUTE(T, NAME, ROUTER)                                                                                   \
    extern "C" __global__ void __launch_bounds__(ROUTER::THREADS)                                                \
        NAME(const float *x, const T *norm, const T *router, T *xn, int *ids, float *weights, int rows,          \
             int hidden, int experts, int k, float epsilon) {                                                    \
        route<T, ROUTER>(x, norm, router, xn, ids, weights, rows, hidden, experts, k, epsilon);                  \
    }

#define PRODUCTS(T, GATE_UP, DOWN, SHAPE)                                                                        \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, SHAPE::BLOCKS)                                  \
        GATE_UP(const T *xn, const T *const *gate, const T *const *up, const int *order, const Tile *tiles,      \
                T *h, int hidden, int inner, int slots) {                                                        \
        const Tile tile = tiles[blockIdx.y];                                                                     \
        if (tile.count == 0) return;                                                                             \
        gate_up<SHAPE>(xn, gate[tile.group], up[tile.group], order, tile, h, hidden, inner, slots);              \
    }                                                                                                            \
    extern "C" __global__ void __launch_bounds__(SHAPE::THREADS, SHAPE::BLOCKS)                                  \
        DOWN(const T *h, const T *const *down, const int *order, const Tile *tiles, float *y, int hidden,        \
             int inner, int experts, int shared) {                                                               \
        const Tile tile = tiles[blockIdx.y];                                                                     \
        if (tile.count == 0) return;                                                                             \
        /* Each part of the shared expert has its columns of one matrix. */                                      \
        const int stride = tile.group < experts ? inner : shared * inner;                                        \
        down_product<SHAPE>(h, down[tile.group], order, tile, y, hidden, inner, stride);                         \
    }

#define KERNELS(T, SUFFIX)                                                                                       \
    ROUTE(T, route_rows_##SUFFIX, RouteMany)                                                                     \
    ROUTE(T, route_rows_few_##SUFFIX, RouteFew)                                                                  \
    PRODUCTS(T, experts_gate_up_##SUFFIX, experts_down_##SUFFIX, Many)                                           \
    PRODUCTS(T, experts_gate_up_few_##SUFFIX, experts_down_few_##SUFFIX, Few)

KERNELS(bf16, bf16)
KERNELS(f16, f16)
KERNELS(float, f32)
