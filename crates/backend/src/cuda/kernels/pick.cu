// The next token out of the scores: what may not come, the largest of the others, its probability.
#include "decode.cuh"
#include <limits.h>

// A block's share of the vocabulary, four scores for each thread.
constexpr int PICK_THREADS = 256;
constexpr int SHARE = 4 * PICK_THREADS;
// Below all scores; finite, so that differences stay numbers.
constexpr float LOWEST = -3e38f;
constexpr int NONE = 0x7fffffff;

// One step's result.
struct Picked {
    int token;  // -1 where every token is banned
    float log_probability;
    int damaged;  // whether some score is not finite
    int step;
};

// What is known about some scores.
struct Seen {
    float most = LOWEST, sum = 0.f;        // the largest of all, and the sum of exp(score - most)
    float best = -INFINITY;                // the largest that is not banned
    int token = NONE;                      // where it first occurs
    int damaged = 0;

    __device__ void add(float score, int id, bool banned) {
        if (!isfinite(score)) damaged = 1;
        join({score, 1.f, banned ? -INFINITY : score, banned ? NONE : id, damaged});
    }
    __device__ void join(const Seen &other) {
        const float higher = fmaxf(most, other.most);
        sum = sum * expf(most - higher) + other.sum * expf(other.most - higher);
        most = higher;
        if (other.best > best || (other.best == best && other.token < token)) best = other.best, token = other.token;
        damaged |= other.damaged;
    }
    __device__ void join_block() {
        __shared__ Seen of_warp[WARP];
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        for (int round = 0; round < 2; round++) {
            for (int other = WARP / 2; other > 0; other /= 2) {
                join({__shfl_xor_sync(ALL_LANES, most, other), __shfl_xor_sync(ALL_LANES, sum, other),
                      __shfl_xor_sync(ALL_LANES, best, other), __shfl_xor_sync(ALL_LANES, token, other),
                      __shfl_xor_sync(ALL_LANES, damaged, other)});
            }
            if (round == 1) return;
            __syncthreads();
            if (lane == 0) of_warp[warp] = *this;
            __syncthreads();
            *this = lane < PICK_THREADS / WARP ? of_warp[lane] : Seen();
        }
    }
};

// Marks the tokens from `first` on, up to `SHARE` of them, that would complete an n-gram of the
// history for the second time.
__device__ __forceinline__ void mark_banned(const int *ids, int begin, int end, int n, const int *whitelist, int whitelisted,
                                            int first, unsigned *marks) {
    constexpr int AT_ONCE = 4;
    const int *prefix = ids + end - (n - 1);
    for (int start = begin + threadIdx.x; n > 0 && start + n <= end; start += AT_ONCE * PICK_THREADS) {
        int tokens[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) tokens[i] = ids[min(start + i * PICK_THREADS + n, end) - 1];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = start + i * PICK_THREADS, token = tokens[i], index = token - first;
            bool banned = at + n <= end && index >= 0 && index < SHARE;
            for (int j = 0; banned && j < n - 1; j++) banned = ids[at + j] == prefix[j];
            for (int j = 0; banned && j < whitelisted; j++) banned = token != whitelist[j];
            if (banned) atomicOr(marks + index / 32, 1u << index % 32);
        }
    }
}

// Takes the step's result into the history, which has room for `room` tokens, and goes on to the next
// step. `window` is the number of the answer's last tokens whose n-grams count, or negative: those of
// prompt and answer.
__device__ __forceinline__ void pick(State *state, int *history, int room, const float *logits, Seen *parts,
                                     unsigned *finished, Picked *picked, const int *whitelist, int vocab, int ngram,
                                     int window, int whitelisted, int appended) {
    __shared__ unsigned marks[SHARE / 32];
    __shared__ bool last;
    const int first = blockIdx.x * SHARE, length = state->length, end = min(length, room);
    const int begin = window < 0 ? 0 : max(state->prompt, end - window);
    const int at = first + 4 * threadIdx.x;
    float4 four = make_float4(0.f, 0.f, 0.f, 0.f);
    if (at < vocab) four = *reinterpret_cast<const float4 *>(logits + at);
    if (threadIdx.x < SHARE / 32) marks[threadIdx.x] = 0;
    __syncthreads();
    mark_banned(history, begin, end, ngram, whitelist, whitelisted, first, marks);
    __syncthreads();

    Seen seen;
    if (at < vocab) {
        const unsigned banned = marks[threadIdx.x / 8] >> threadIdx.x % 8 * 4;
        seen.add(four.x, at, banned & 1), seen.add(four.y, at + 1, banned & 2);
        seen.add(four.z, at + 2, banned & 4), seen.add(four.w, at + 3, banned & 8);
    }
    seen.join_block();
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = seen;
        __threadfence();
        // The counter returns to 0 by itself.
        last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last) return;

    seen = Seen();
    for (int p = threadIdx.x; p < gridDim.x; p += PICK_THREADS) {
        const volatile Seen &part = parts[p];
        seen.join({part.most, part.sum, part.best, part.token, part.damaged});
    }
    seen.join_block();
    if (threadIdx.x > 0) return;
    const int token = seen.token == NONE ? -1 : seen.token;
    const int step = state->step;
    *picked = {token, seen.best - seen.most - logf(seen.sum), seen.damaged, step};
    if (length < room) history[length] = token;
    *state = {state->cached + appended, length + 1, state->prompt, step + 1, max(token, 0)};
}

// Both run with [ceil(vocab / SHARE), rows] x 256; vocab is a multiple of 4. `parts` is [rows, blocks],
// and `finished` [rows] holds zeros before the first launch; the kernels leave it so.

// For one sequence.
extern "C" __global__ void __launch_bounds__(PICK_THREADS)
    decode_pick(State *state, int *history, const float *logits, Seen *parts, unsigned *finished, Picked *picked,
                const int *whitelist, int vocab, int ngram, int window, int whitelisted, int appended) {
    pick(state, history, INT_MAX, logits, parts, finished, picked, whitelist, vocab, ngram, window, whitelisted, appended);
}

// For the sequences in `slots` [rows], none in idle rows; `picked` is [rows], `histories` [slots,
// history_stride]. A sequence past its end no longer fits: its history stays as it is.
extern "C" __global__ void __launch_bounds__(PICK_THREADS)
    batch_pick(State *states, const int *slots, int *histories, int history_stride, const float *logits, Seen *parts,
               unsigned *finished, Picked *picked, const int *whitelist, int vocab, int ngram, int window, int whitelisted,
               int appended) {
    const int row = blockIdx.y, slot = slots[row];
    if (slot < 0) return;
    pick(states + slot, histories + size_t(slot) * history_stride, history_stride, logits + size_t(row) * vocab,
         parts + size_t(row) * gridDim.x, finished + row, picked + row, whitelist, vocab, ngram, window, whitelisted,
         appended);
}
