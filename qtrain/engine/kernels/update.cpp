// The fixed-point update of parameters: qtrain/layers/optimizer.py's formulas in double, with its noise.
#include <algorithm>
#include <vector>
#include "common.h"

// One parameter, as qtrain.engine.update.Parameter lays it out.
struct Parameter {
    float* w;
    const float* g;
    float* v;                // null without momentum
    const int32_t* index;    // logical index of each element of a row; null: as they lie
    int64_t n_rows, row_size;
    double master_max, velocity_max;             // largest codes
    uint32_t master_stream, velocity_stream;     // of the noise
    int32_t stochastic;
    int32_t has_velocity;                        // from an earlier step
    int32_t least;           // the master's exponent so far, which never shrinks; after the call the new one
    int32_t finite;          // result; 0: a value was not finite and w is as it was
};

// What all parameters share, as qtrain.engine.update.Terms lays it out.
struct Terms {
    double scale, momentum, decay, rate;
    uint32_t clock;  // key of seed and step
    int32_t threads;
};

namespace {

double largest(const Peak& peak) { return seen<double>(peak, true); }

Grid grid_for(uint32_t stream, double max_code, int exponent, uint32_t clock) {
    const Rule rule{-max_code, max_code, 0.0, stream, DYNAMIC, 1, 0, 0};
    return grid_of(rule, exponent, clock, std::numeric_limits<double>::infinity());
}

template <bool STOCHASTIC> void update(Parameter& p, const Terms& t, double* work) {
    const Place place{nullptr, STOCHASTIC ? p.index : nullptr, p.n_rows, p.row_size, 1, 1, 0, t.threads};
    float *const w = p.w, *const v = p.v;
    const float* const g = p.g;
    const double scale = t.scale, momentum = t.momentum, decay = t.decay, rate = t.rate;
    const bool moves = p.has_velocity;
    Peak peak = sweep(place, [=](int64_t at, int64_t length, uint32_t, const int32_t*) {
        int64_t magnitude = 0;
#pragma omp simd reduction(max : magnitude)
        for (int64_t i = at; i < at + length; ++i) {
            double x = double(g[i]) * scale;
            if (moves) x = double(v[i]) * momentum + x;
            if (decay != 0.0) x = x + double(w[i]) * decay;
            work[i] = x;
            const int64_t m = magnitude_bits(x);
            magnitude = m > magnitude ? m : magnitude;
        }
        return Peak{magnitude, 0};
    });
    p.finite = std::isfinite(largest(peak));
    if (!p.finite) return;
    const Rounder<double, STOCHASTIC> round_v(
        grid_for(p.velocity_stream, p.velocity_max, exponent_for(largest(peak), p.velocity_max), t.clock));
    peak = sweep(place, [=](int64_t at, int64_t length, uint32_t position, const int32_t* index) {
        int64_t magnitude = 0;
#pragma omp simd reduction(max : magnitude)
        for (int64_t i = 0; i < length; ++i) {
            double x = work[at + i];
            if (v) {
                x = round_v.code(x, position + uint32_t(index ? index[i] : int32_t(i))) * round_v.step;
                v[at + i] = float(x);
            }
            x = double(w[at + i]) - x * rate;
            work[at + i] = x;
            const int64_t m = magnitude_bits(x);
            magnitude = m > magnitude ? m : magnitude;
        }
        return Peak{magnitude, 0};
    });
    p.finite = std::isfinite(largest(peak));
    if (!p.finite) return;
    p.least = std::max(p.least, exponent_for(largest(peak), p.master_max));
    const Rounder<double, STOCHASTIC> round_w(grid_for(p.master_stream, p.master_max, p.least, t.clock));
    sweep(place, [=](int64_t at, int64_t length, uint32_t position, const int32_t* index) {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i)
            w[at + i] = float(round_w.code(work[at + i], position + uint32_t(index ? index[i] : int32_t(i))) *
                              round_w.step);
        return Peak();
    });
}

}  // namespace

extern "C" {

// Of every parameter v <- round(momentum v + scale g + decay w), w <- round(w - rate v). Stops behind the first that is
// not finite.
void qt_update(Parameter* parameters, int64_t count, const Terms* terms) {
    int64_t longest = 0;
    for (int64_t i = 0; i < count; ++i) longest = std::max(longest, parameters[i].n_rows * parameters[i].row_size);
    std::vector<double> work(longest);
    for (int64_t i = 0; i < count; ++i) {
        (parameters[i].stochastic ? update<true> : update<false>)(parameters[i], *terms, work.data());
        if (!parameters[i].finite) return;
    }
}
}
