// Batch normalization's passes over whole tensors: apply, sum the errors, send them back (codes: quantize.cpp).
// The constants of a channel come from norm_constants.cpp; the arithmetic is that of qtrain/layers/norms/batch.py.
#include "tiles.h"

namespace {

template <bool LAST>
Peak apply(const int8_t* a, float* out, int64_t length, const float* gain, const float* offset,
           const Rounder<float, false> round) {
    int32_t magnitude = 0, positive = 0;
#pragma omp simd reduction(max : magnitude, positive)
    for (int64_t i = 0; i < length; ++i) {
        const float y = gain[LAST ? i : 0] * float(a[i]) + offset[LAST ? i : 0];
        const int32_t b = bits_of(y), m = magnitude_bits(y);
        magnitude = m > magnitude ? m : magnitude;
        positive = b > positive ? b : positive;
        out[i] = round.code(y, 0) * round.step;
    }
    return {magnitude, positive};
}

template <bool LAST>
void sum_errors(const float* g, const int8_t* a, int8_t* kept, int64_t length, const float* gain, const float* offset,
                float unit, float above, float below, int32_t* s1, int32_t* s2, const Rounder<float, false> round) {
    int32_t one = 0, two = 0;
#pragma omp simd reduction(+ : one, two)
    for (int64_t i = 0; i < length; ++i) {
        const float out = round.code(gain[LAST ? i : 0] * float(a[i]) + offset[LAST ? i : 0], 0) * round.step;
        const int32_t e = out > above && out < below ? int32_t(g[i] * unit) : 0;
        const int32_t code = a[i];
        kept[i] = int8_t(e);
        if (LAST) s1[i] += e, s2[i] += e * code;
        else one += e, two += e * code;
    }
    if (!LAST) *s1 += one, *s2 += two;
}

template <bool LAST, bool STOCHASTIC, bool INDEXED>
Peak send(const int8_t* g, const int8_t* a, float* out, int64_t length, const float* p, const float* q, const float* r,
          uint32_t position, const int32_t* index, const Rounder<float, STOCHASTIC> round) {
    int32_t magnitude = 0, positive = 0;
#pragma omp simd reduction(max : magnitude, positive)
    for (int64_t i = 0; i < length; ++i) {
        const int64_t c = LAST ? i : 0;
        const float dx = p[c] * float(g[i]) + q[c] * float(a[i]) + r[c];
        const int32_t b = bits_of(dx), m = magnitude_bits(dx);
        magnitude = m > magnitude ? m : magnitude;
        positive = b > positive ? b : positive;
        out[i] = round.code(dx, position + uint32_t(INDEXED ? index[i] : int32_t(i))) * round.step;
    }
    return {magnitude, positive};
}

template <bool STOCHASTIC>
Peak send_all(const int8_t* g, const int8_t* a, float* out, const float* p, const float* q, const float* r,
              const Grid& grid, const Place& place) {
    const Tiles t(place);
    const auto ps = spread(p, place, t), qs = spread(q, place, t), rs = spread(r, place, t);
    const Rounder<float, STOCHASTIC> round(grid);
    const float *pp = ps.data(), *qq = qs.data(), *rr = rs.data();
    const bool last = place.last;
    return over(place, t, [=](int64_t at, int64_t n, int64_t c, uint32_t position, const int32_t* index) {
        const auto run = !last ? send<false, STOCHASTIC, false>
                         : index ? send<true, STOCHASTIC, true>
                                 : send<true, STOCHASTIC, false>;
        return run(g + at, a + at, out + at, n, pp + c, qq + c, rr + c, position, index, round);
    });
}

}  // namespace

extern "C" {

// out = gain a + offset on the point's grid, whose exponent is returned.
int qt_norm(const int8_t* a, float* out, const float* gain, const float* offset, Rule* r, const Place* place, int learn,
            double cap) {
    const Place p = *place;
    const Tiles t(p);
    const auto gains = spread(gain, p, t), offsets = spread(offset, p, t);
    const float *ga = gains.data(), *of = offsets.data();
    const auto run = [=](const Grid& g) {
        const Rounder<float, false> round(g);
        return over(p, t, [=](int64_t at, int64_t n, int64_t c, uint32_t, const int32_t*) {
            return (p.last ? apply<true> : apply<false>)(a + at, out + at, n, ga + c, of + c, round);
        });
    };
    return by_pass<float>(*r, 0, learn, cap, run, [=] { return run(grid_of(*r, 0, 0, cap)); });
}

// kept = codes of g (g x unit) where the stored output (by gain, offset and the point at `exponent`) lies between above
// and below; sums [C, 2] += (sum kept, sum kept a).
void qt_norm_sums(const float* g, const int8_t* a, int8_t* kept, int64_t* sums, const float* gain, const float* offset,
                  float unit, float above, float below, const Rule* r, int exponent, double cap, const Place* place) {
    const Place p = *place;
    const Tiles t(p);
    const auto gains = spread(gain, p, t), offsets = spread(offset, p, t);
    const Rounder<float, false> round(grid_of(*r, exponent, 0, cap));
    const float *ga = gains.data(), *of = offsets.data();
    channel_sums(p, t, sums, [=](int64_t at, int64_t n, int32_t* s1, int32_t* s2, int64_t c) {
        (p.last ? sum_errors<true> : sum_errors<false>)(g + at, a + at, kept + at, n, ga + c, of + c, unit, above, below,
                                                        s1, s2, round);
        return Peak();
    });
}

// out = P kept + Q a + R on the point's grid, whose exponent is returned.
int qt_norm_error(const int8_t* kept, const int8_t* a, float* out, const float* p, const float* q, const float* r,
                  Rule* rule, const Place* place, uint32_t clock) {
    const double cap = std::numeric_limits<double>::infinity();
    const auto run = [=](const Grid& g) {
        return (g.stochastic ? send_all<true> : send_all<false>)(kept, a, out, p, q, r, g, *place);
    };
    return by_pass<float>(*rule, clock, true, cap, run, [=] { return run(grid_of(*rule, 0, clock, cap)); });
}
}
