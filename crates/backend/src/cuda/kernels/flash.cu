// Around flash-attn, whose scores have no bias: heads that are widened so that their plain products hold that of
// decomposed relative positions (Li et al., 2022), and the way back. Windows are gathered on the way.
// T is bf16 or f16 and names a kernel's end.
#include "common.cuh"

constexpr int WARPS = 8;
constexpr int CHUNK = 8;                          // Elements of a copy; a head has a multiple of them.
constexpr int GROUP = 8, GROUPS = WARP / GROUP;  // Lanes for one row of a table, and rows at a time.

template <typename T> __device__ __forceinline__ void copy_chunk(const T *from, T *to) {
    *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
}

// q · row in every lane of a group that has its own row. All lanes take part.
template <typename T> __device__ __forceinline__ float dot(const T *q, const T *row, int dim) {
    float sum = 0.f;
    for (int i = threadIdx.x % GROUP * CHUNK; i < dim; i += GROUP * CHUNK) {
        const uint4 a = *reinterpret_cast<const uint4 *>(q + i), b = *reinterpret_cast<const uint4 *>(row + i);
        const uint32_t as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
            const float2 x = widen2(as[pair], T()), y = widen2(bs[pair], T());
            sum = fmaf(x.x, y.x, fmaf(x.y, y.y, sum));
        }
    }
#pragma unroll
    for (int lanes = GROUP / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    return sum;
}

// flash_widen_T: heads of dim elements become heads of `columns`, for all positions of windows of side x side; the
// whole grid is a window too. A warp takes a head of a position at (y, x) of its window:
//   q: its elements, sqrt(dim) q · table_height[y - j + side - 1] for each row j, the same of table_width, x and columns
//   k: its elements, 1 for row y and 0 for the others, 1 for column x and 0 for the others
//   v: its elements
// and zeros behind. So q · k / sqrt(dim) is the score with its bias.
//   grid (ceil(side * side / 8), heads, windows), block 256, no dynamic shared memory
//   (const T *qkv [batch, height, width, 3, heads, dim], const T *padding [3, heads, dim] for positions outside, or null
//    where windows fit, const T *table_height, const T *table_width [2 side - 1, dim],
//    T *wide [windows, side * side, 3, heads, columns], int height, int width, int side, int dim, int columns)
template <typename T>
__device__ void flash_widen(const T *qkv, const T *padding, const T *table_height, const T *table_width, T *wide, int height,
                            int width, int side, int dim, int columns) {
    const int lane = threadIdx.x % WARP, position = blockIdx.x * WARPS + threadIdx.x / WARP, window = blockIdx.z;
    if (position >= side * side) return;
    const int down = (height + side - 1) / side, across = (width + side - 1) / side;
    const int y = position / side, x = position % side;
    const int top = window / across % down * side + y, left = window % across * side + x;
    const int64_t at = (static_cast<int64_t>(window / across / down) * height + top) * width + left;
    const bool inside = top < height && left < width;

    const int heads = gridDim.y, from_part = heads * dim, to_part = heads * columns;
    const T *const from = (inside ? qkv + at * 3 * from_part : padding) + blockIdx.y * dim;
    T *const to = wide + (static_cast<int64_t>(window) * side * side + position) * 3 * to_part + blockIdx.y * columns;
#pragma unroll
    for (int part = 0; part < 3; ++part)
        for (int i = lane * CHUNK; i < dim; i += WARP * CHUNK)
            copy_chunk(from + part * from_part + i, to + part * to_part + i);

    for (int i = dim + lane; i < columns; i += WARP) {
        const int line = i - dim;  // A row, or a column behind all rows.
        if (line >= 2 * side) to[i] = narrow<T>(0.f);
        to[to_part + i] = narrow<T>(line == y || line == side + x ? 1.f : 0.f);
        to[2 * to_part + i] = narrow<T>(0.f);
    }
    const float scale = sqrtf(dim);
    for (int first = 0; first < 2 * side; first += GROUPS) {
        const int mine = first + lane / GROUP, line = min(mine, 2 * side - 1);
        const bool row = line < side;
        const int distance = row ? y - line : x - (line - side);
        const float bias = dot(from, (row ? table_height : table_width) + (distance + side - 1) * dim, dim);
        if (lane % GROUP == 0 && mine < 2 * side) to[dim + line] = narrow<T>(bias * scale);
    }
}

// flash_narrow_T: the first dim elements of each head, back in their place in the image. A thread takes 8 of them.
//   grid (ceil(count / 256)), block 256, no dynamic shared memory
//   (const T *wide [windows, side * side, heads, columns], T *out [batch, height, width, heads, dim],
//    size_t count: chunks of `out`, int height, int width, int side, int heads, int dim, int columns)
template <typename T>
__device__ void flash_narrow(const T *wide, T *out, size_t count, int height, int width, int side, int heads, int dim, int columns) {
    const size_t at = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const int chunks = dim / CHUNK, i = at % chunks * CHUNK;
    size_t rest = at / chunks;
    const int head = rest % heads; rest /= heads;
    const int x = rest % width; rest /= width;
    const int y = rest % height; rest /= height;
    const int down = (height + side - 1) / side, across = (width + side - 1) / side;
    const size_t window = (rest * down + y / side) * across + x / side;
    const size_t position = window * side * side + y % side * side + x % side;
    copy_chunk(wide + (position * heads + head) * columns + i, out + at * CHUNK);
}

#define KERNELS(T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(WARPS *WARP)                                                          \
        flash_widen_##T(const T *qkv, const T *padding, const T *table_height, const T *table_width, T *wide,          \
                        int height, int width, int side, int dim, int columns) {                                       \
        flash_widen(qkv, padding, table_height, table_width, wide, height, width, side, dim, columns);                 \
    }                                                                                                                  \
    extern "C" __global__ void flash_narrow_##T(const T *wide, T *out, size_t count, int height, int width, int side,  \
                                                int heads, int dim, int columns) {                                     \
        flash_narrow(wide, out, count, height, width, side, heads, dim, columns);                                      \
    }

KERNELS(bf16)
KERNELS(f16)
