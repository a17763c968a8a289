// The fixed-point update of one parameter: qtrain/layers/optimizer.py's formulas in double, with its noise.
#include <algorithm>
#include "common.h"

// As qtrain.engine.library.Terms lays it out.
struct Terms {
    double scale, momentum, decay, rate;
    int32_t has_velocity, rounds_velocity;  // from an earlier step; momentum is in use
    int32_t least;                          // the master's exponent so far, which never shrinks
    int32_t velocity_exponent, finite;      // results, with `least` the new master exponent
};

namespace {

constexpr int MIN_EXPONENT = -100;  // formats/fixed.py

int exponent_for(double amax, double max_code) {
    if (amax == 0.0) return MIN_EXPONENT;
    int power, width;
    const double mantissa = std::frexp(amax, &power);
    std::frexp(max_code, &width);
    return std::max(power - width + (std::ldexp(mantissa, width) > max_code), MIN_EXPONENT);
}

double largest(const Peak& peak) {
    double amax;
    std::memcpy(&amax, &peak.magnitude, sizeof amax);
    return amax;
}

void scale_to(Point& p, int exponent) {
    p.inverse = std::ldexp(1.0, -exponent), p.step = std::ldexp(1.0, exponent);
}

template <bool STOCHASTIC>
void update(float* w, const float* g, float* v, double* work, Terms& t, Point& vp, Point& wp, int threads) {
    const Terms c = t;
    Peak peak;
    sweep(vp, threads, peak, [=](int64_t at, int64_t length, uint32_t, const int32_t*) {
        int64_t magnitude = 0;
#pragma omp simd reduction(max : magnitude)
        for (int64_t i = at; i < at + length; ++i) {
            double x = double(g[i]) * c.scale;
            if (c.has_velocity) x = double(v[i]) * c.momentum + x;
            if (c.decay != 0.0) x = x + double(w[i]) * c.decay;
            work[i] = x;
            const int64_t m = magnitude_bits(x);
            magnitude = m > magnitude ? m : magnitude;
        }
        return Peak{magnitude, 0};
    });
    t.finite = std::isfinite(largest(peak));
    if (!t.finite) return;
    t.velocity_exponent = exponent_for(largest(peak), vp.high);
    scale_to(vp, t.velocity_exponent);
    const Rounder<double, STOCHASTIC> round_v(vp);
    peak = Peak();
    sweep(vp, threads, peak, [=](int64_t at, int64_t length, uint32_t position, const int32_t* index) {
        int64_t magnitude = 0;
#pragma omp simd reduction(max : magnitude)
        for (int64_t i = 0; i < length; ++i) {
            double x = work[at + i];
            if (c.rounds_velocity) {
                x = round_v.code(x, position + uint32_t(index ? index[i] : int32_t(i))) * round_v.step;
                v[at + i] = float(x);
            }
            x = double(w[at + i]) - x * c.rate;
            work[at + i] = x;
            const int64_t m = magnitude_bits(x);
            magnitude = m > magnitude ? m : magnitude;
        }
        return Peak{magnitude, 0};
    });
    t.finite = std::isfinite(largest(peak));
    if (!t.finite) return;
    t.least = std::max(t.least, exponent_for(largest(peak), wp.high));
    scale_to(wp, t.least);
    const Rounder<double, STOCHASTIC> round_w(wp);
    sweep(wp, threads, peak, [=](int64_t at, int64_t length, uint32_t position, const int32_t* index) {
#pragma omp simd
        for (int64_t i = 0; i < length; ++i)
            w[at + i] = float(round_w.code(work[at + i], position + uint32_t(index ? index[i] : int32_t(i))) *
                              round_w.step);
        return Peak();
    });
}

}  // namespace

extern "C" {

// v <- round(momentum v + scale g + decay w), w <- round(w - rate v); the points' scales are found here. `work` is as
// long as w. terms.finite 0: a value was not finite and w is as it was.
void qt_update(float* w, const float* g, float* v, double* work, Terms* terms, Point* velocity, Point* master,
               int threads) {
    (velocity->stochastic ? update<true> : update<false>)(w, g, v, work, *terms, *velocity, *master, threads);
}
}
