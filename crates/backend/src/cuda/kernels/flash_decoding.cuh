// Flash-decoding (Dao et al., 2023): one query of a head attends to the sequence's positions in parts,
// a block for each, with `head_dim / CHUNK` lanes for each position; the last block through joins the
// parts. Scores are kept times log2(e): their weights are powers of two.
#pragma once
#include "decode.cuh"

constexpr int ATTENTION_THREADS = 256;
// Positions for which a thread asks at once.
constexpr int POSITIONS = 4;
// Parts into which the positions are cut at most: a lane for each.
constexpr int MOST_PARTS = WARP;
// Below all scores; finite, so that differences stay numbers.
constexpr float LOWEST = -1e30f;

__device__ __forceinline__ float score_scale(int head_dim) { return rsqrtf(float(head_dim)) * 1.44269504f; }

// A block's part of the positions, and how many parts have any; one at least is used.
struct Part {
    int begin, end, used;

    __device__ __forceinline__ Part(int positions, int part, int parts, int head_dim, int chunk) {
        const int groups = ATTENTION_THREADS / (head_dim / chunk);
        const int each = (positions + parts * groups - 1) / (parts * groups) * groups;
        begin = part * each, end = min(begin + each, positions);
        used = each > 0 ? (positions + each - 1) / each : 1;
    }
};

// A head's keys and values, one position behind the other; `keys` is at the thread's column.
template <typename T> struct Contiguous {
    const T *keys;
    ptrdiff_t to_values;  // bytes between a position's key and its value
    int head_dim;

    __device__ __forceinline__ const T *key(int position) const { return keys + size_t(position) * head_dim; }
    __device__ __forceinline__ const T *value(const T *key) const {
        return reinterpret_cast<const T *>(reinterpret_cast<const char *>(key) + to_values);
    }
};

// What a thread has of the sum of values: its columns of it, for the positions that its group took.
template <typename T> struct Mix {
    float value[CHUNK<T>] = {}, most = LOWEST, sum = 0.f;
};

// Attends to the positions of a part, none where it is empty. `query` holds the thread's columns.
template <typename T, typename Places>
__device__ __forceinline__ void attend(const Places &places, const Part &part, int head_dim, const float (&query)[CHUNK<T>],
                                       Mix<T> &mix) {
    const int lanes = head_dim / CHUNK<T>, groups = ATTENTION_THREADS / lanes, group = threadIdx.x / lanes;
    const float scale = score_scale(head_dim);
    for (int at = part.begin + group; at - group < part.end; at += POSITIONS * groups) {
        const T *keys[POSITIONS];
        uint4 k[POSITIONS], v[POSITIONS];
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) keys[i] = places.key(min(at + i * groups, part.end - 1));
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) k[i] = load_chunk(keys[i]), v[i] = load_chunk(places.value(keys[i]));
        float score[POSITIONS], highest = mix.most;
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) score[i] = dot<T>(k[i], query, 0.f);
        for (int other = lanes / 2; other > 0; other /= 2) {
#pragma unroll
            for (int i = 0; i < POSITIONS; i++) score[i] += __shfl_xor_sync(ALL_LANES, score[i], other);
        }
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) {
            score[i] = at + i * groups < part.end ? score[i] * scale : -INFINITY;
            highest = fmaxf(highest, score[i]);
        }
        const float kept = exp2f(mix.most - highest);
        mix.most = highest, mix.sum *= kept;
#pragma unroll
        for (int c = 0; c < CHUNK<T>; c++) mix.value[c] *= kept;
#pragma unroll
        for (int i = 0; i < POSITIONS; i++) {
            const float weight = exp2f(score[i] - mix.most);
            float of_position[CHUNK<T>];
            widen_chunk<T>(v[i], of_position);
            mix.sum += weight;
#pragma unroll
            for (int c = 0; c < CHUNK<T>; c++) mix.value[c] = fmaf(weight, of_position[c], mix.value[c]);
        }
    }
}

// Joins the threads of a block, then the blocks of a head, into `out` [head_dim]. `parts` has room for
// [gridDim.y, head_dim + 2] values, and `finished` is a counter at 0; both are the head's own.
template <typename T, typename Out>
__device__ __forceinline__ void join(Mix<T> &mix, int part, int used, int head_dim, float *parts, unsigned *finished,
                                     Out *out) {
    constexpr int WARPS = ATTENTION_THREADS / WARP;
    __shared__ float mixed[WARPS][WARP * CHUNK<T>], most_of[WARPS], sum_of[WARPS];
    __shared__ bool last;
    const int warp = threadIdx.x / WARP, lanes = head_dim / CHUNK<T>, column = threadIdx.x % lanes * CHUNK<T>;
    // A warp's groups, then the block's warps.
    for (int other = lanes; other < WARP; other *= 2) {
        const float highest = fmaxf(mix.most, __shfl_xor_sync(ALL_LANES, mix.most, other));
        const float kept = exp2f(mix.most - highest);
        mix.most = highest, mix.sum *= kept;
        mix.sum += __shfl_xor_sync(ALL_LANES, mix.sum, other);
#pragma unroll
        for (int c = 0; c < CHUNK<T>; c++) {
            mix.value[c] *= kept;
            mix.value[c] += __shfl_xor_sync(ALL_LANES, mix.value[c], other);
        }
    }
    if (threadIdx.x % WARP < lanes) {
#pragma unroll
        for (int c = 0; c < CHUNK<T>; c++) mixed[warp][column + c] = mix.value[c];
        if (column == 0) most_of[warp] = mix.most, sum_of[warp] = mix.sum;
    }
    __syncthreads();
    // A part's record: its mixed values, then their greatest score and sum of weights.
    const int record = head_dim + 2;
    for (int d = threadIdx.x; d < head_dim; d += ATTENTION_THREADS) {
        float highest = LOWEST, value = 0.f, all = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, most_of[w]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float weight = exp2f(most_of[w] - highest);
            value = fmaf(weight, mixed[w][d], value);
            all = fmaf(weight, sum_of[w], all);
        }
        if (used == 1) {
            out[d] = narrow<Out>(value * (1.f / all));
            continue;
        }
        float *to = parts + part * record;
        to[d] = value;
        if (d == 0) to[head_dim] = highest, to[head_dim + 1] = all;
    }
    if (used == 1) return;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        // The counter returns to 0 by itself.
        last = atomicInc(finished, used - 1) == used - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last) return;

    // A warp weighs the parts, a lane for each, and its lanes sum columns.
    const int lane = threadIdx.x % WARP, of_lane = min(lane, used - 1);
    for (int first = warp * WARP; first < head_dim; first += ATTENTION_THREADS) {
        const int d = min(first + lane, head_dim - 1);
        const float most = __ldcg(parts + of_lane * record + head_dim);
        const float sum = __ldcg(parts + of_lane * record + head_dim + 1);
        float of_part[MOST_PARTS], value = 0.f;
#pragma unroll
        for (int p = 0; p < MOST_PARTS; p++) of_part[p] = p < used ? __ldcg(parts + p * record + d) : 0.f;
        const float highest = warp_max(most), weight = lane < used ? exp2f(most - highest) : 0.f;
        const float share = weight / warp_sum(weight * sum);
#pragma unroll
        for (int p = 0; p < MOST_PARTS; p++) value = fmaf(__shfl_sync(ALL_LANES, share, p), of_part[p], value);
        out[d] = narrow<Out>(value);
    }
}
