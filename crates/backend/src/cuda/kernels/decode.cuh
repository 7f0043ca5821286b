// What the kernels of a decoding step share: where a generation is, and products with rows of weights.
#pragma once
#include "common.cuh"

using f32 = float;

// Where a generation is.
struct State {
    int cached;  // positions in the key-value cache
    int length;  // tokens in the history: the prompt's and the answer's
    int prompt;  // of these the prompt's
    int step;    // tokens picked so far
    int token;   // the last one, which the next step takes in
};

// What one load takes of a row: 16 bytes.
template <typename T> constexpr int CHUNK = 16 / sizeof(T);

// A step reads each weight once: it passes L1 by. Volatile, so that loads stay in front of what
// waits for them.
__device__ __forceinline__ uint4 load_chunk(const void *at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}

template <typename T> __device__ __forceinline__ void widen_chunk(const uint4 &chunk, float (&v)[CHUNK<T>]) {
    const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(T) == 4) {
            v[i] = __uint_as_float(words[i]);
        } else {
            const float2 two = widen2(words[i], T());
            v[2 * i] = two.x, v[2 * i + 1] = two.y;
        }
    }
}

template <typename T> __device__ __forceinline__ uint4 narrow_chunk(const float (&v)[CHUNK<T>]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(T) == 4) words[i] = __float_as_uint(v[i]);
        else words[i] = narrow2<T>(v[2 * i], v[2 * i + 1]);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

template <typename T> __device__ __forceinline__ float dot(const uint4 &weights, const float (&v)[CHUNK<T>], float sum) {
    float w[CHUNK<T>];
    widen_chunk<T>(weights, w);
#pragma unroll
    for (int i = 0; i < CHUNK<T>; i++) sum = fmaf(w[i], v[i], sum);
    return sum;
}

template <int N> __device__ __forceinline__ void load_inputs(const float *from, float (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        const float4 four = *reinterpret_cast<const float4 *>(from + i);
        v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
    }
}

// Each warp's sums, into shared memory: `partial` is [warps, N].
template <int N> __device__ __forceinline__ void keep_sums(const float (&sums)[N], float (*partial)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float sum = warp_sum(sums[i]);
        if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP][i] = sum;
    }
    __syncthreads();
}
template <int N> __device__ __forceinline__ float total(const float (*partial)[N], int i) {
    float sum = 0.f;
    for (int warp = 0; warp < blockDim.x / WARP; warp++) sum += partial[warp][i];
    return sum;
}

// --- Streams of rows, a warp for each pair ---

// Chunks of each of two rows for which a lane asks at once.
constexpr int BATCH = 5;

// Puts x times the norm's weights into shared memory, and gives the factor that is left. A chunk's
// quarters lie apart, so that neighbouring lanes read neighbouring float4. `meanwhile` runs while
// the loads are under way.
template <typename T, typename F>
__device__ __forceinline__ float stage(const float *x, const T *norm, int hidden, float eps, float4 *input, F meanwhile) {
    __shared__ float scratch[WARP];
    const int chunks = hidden / CHUNK<T>;
    int c = threadIdx.x;
    float v[CHUNK<T>], scale[CHUNK<T>], squares = 0.f;
    uint4 scales;
    const auto fetch = [&] {
        const int there = min(c, chunks - 1);
        load_inputs(x + there * CHUNK<T>, v);
        scales = load_chunk(norm + there * CHUNK<T>);
    };
    fetch();
    meanwhile();
    while (c < chunks) {
        widen_chunk<T>(scales, scale);
#pragma unroll
        for (int i = 0; i < CHUNK<T>; i++) squares = fmaf(v[i], v[i], squares);
#pragma unroll
        for (int i = 0; i < CHUNK<T>; i += 4)
            input[i / 4 * chunks + c] =
                make_float4(v[i] * scale[i], v[i + 1] * scale[i + 1], v[i + 2] * scale[i + 2], v[i + 3] * scale[i + 3]);
        c += blockDim.x;
        if (c < chunks) fetch();
    }
    return rsqrtf(block_sum(squares, scratch) / hidden + eps);
}

// Two rows, and chunks of them on their way to a warp.
template <typename T> struct Rows {
    const T *a, *b;
};
template <typename T> struct Batch {
    uint4 a[BATCH], b[BATCH];

    __device__ __forceinline__ void load(Rows<T> rows, int first, int chunks) {
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const int c = first + i * WARP;
            a[i] = b[i] = make_uint4(0, 0, 0, 0);
            if (c < chunks) a[i] = load_chunk(rows.a + c * CHUNK<T>), b[i] = load_chunk(rows.b + c * CHUNK<T>);
        }
    }
    __device__ __forceinline__ void multiply(const float4 *input, int first, int chunks, float2 &sums) const {
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            const int c = min(first + i * WARP, chunks - 1);
            float v[CHUNK<T>];
#pragma unroll
            for (int part = 0; part < CHUNK<T> / 4; part++) {
                const float4 four = input[part * chunks + c];
                v[4 * part] = four.x, v[4 * part + 1] = four.y, v[4 * part + 2] = four.z, v[4 * part + 3] = four.w;
            }
            sums.x = dot<T>(a[i], v, sums.x);
            sums.y = dot<T>(b[i], v, sums.y);
        }
    }
};

// One warp's share of many pairs of rows: `finish(task, sums)` gets the products with the input of
// the rows `rows_of(task)`. `batch` holds the start of the first ones; the start of the next ones is
// on its way while the warp joins its sums.
template <typename T, typename RowsOf, typename Finish>
__device__ __forceinline__ void stream(Batch<T> &batch, const float4 *input, int chunks, int task, int stride, int tasks,
                                       RowsOf rows_of, Finish finish) {
    const int lane = threadIdx.x % WARP;
    while (task < tasks) {
        float2 sums = make_float2(0.f, 0.f);
        batch.multiply(input, lane, chunks, sums);
        for (int first = lane + BATCH * WARP; first - lane < chunks; first += BATCH * WARP) {
            batch.load(rows_of(task), first, chunks);
            batch.multiply(input, first, chunks, sums);
        }
        const int done = task;
        task += stride;
        if (task < tasks) batch.load(rows_of(task), lane, chunks);
        sums.x = warp_sum(sums.x), sums.y = warp_sum(sums.y);
        if (lane == 0) finish(done, sums);
    }
}
