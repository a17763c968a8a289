// Batch normalization's passes over whole tensors: store codes with their sums, apply, sum the errors, send them back.
// The constants of a channel come from norm_constants.cpp; the arithmetic is that of qtrain/layers/norms/batch.py.
#include <vector>
#include "common.h"

// A tensor [n, C, H, W] as it lies: channels last (one run of H W C an image) or channels first (C planes of H W).
// Channels last, constants are repeated over a tile of whole pixels, so that loops are long whatever C is.
struct Map {
    int64_t channels, plane;
    int32_t last;
};

namespace {

constexpr int64_t TILE = 256;

struct Tiles {
    int64_t length, count;
    explicit Tiles(const Map& m) {
        const int64_t image = m.channels * m.plane, pixels = (TILE + m.channels - 1) / m.channels;
        length = m.last ? std::min(image, pixels * m.channels) : m.plane;
        count = m.last ? (image + length - 1) / length : m.channels;
    }
};

std::vector<float> spread(const float* constant, const Map& m, const Tiles& t) {
    std::vector<float> tile(m.last ? t.length : m.channels);
    for (size_t i = 0; i < tile.size(); ++i) tile[i] = constant[m.last ? i % m.channels : i];
    return tile;
}

// body(begin, length, constant, position, index) for every tile or plane; `constant` is where its constants start.
template <class Body> void over(const Point& p, const Map& m, const Tiles& t, int threads, Peak& peak, Body body) {
#pragma omp parallel num_threads(threads)
    {
        Peak own;
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < p.n_rows; ++row) {
            const int64_t position = (p.rows ? p.rows[row] : row) * p.row_size;
            for (int64_t i = 0; i < t.count; ++i) {
                const int64_t at = i * t.length, left = p.row_size - at;
                own.join(body(row * p.row_size + at, left < t.length ? left : t.length, m.last ? 0 : i,
                              uint32_t(position) + (p.index ? 0 : uint32_t(at)), p.index ? p.index + at : nullptr));
            }
        }
#pragma omp critical
        peak.join(own);
    }
}

// Sums of `first` and `second` by channel, body(begin, length, s1, s2) adding to int32 tiles (or to one pair a plane).
template <class Body>
void channel_sums(const Point& p, const Map& m, const Tiles& t, int threads, int64_t* sums, Peak& peak, Body body) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<int64_t> total(2 * m.channels);
        std::vector<int32_t> tile(m.last ? 2 * t.length : 2);
        Peak own;
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < p.n_rows; ++row) {
            for (int64_t i = 0; i < t.count; ++i) {
                const int64_t at = i * t.length, left = p.row_size - at;
                const int64_t length = left < t.length ? left : t.length;
                own.join(body(row * p.row_size + at, length, tile.data(), tile.data() + tile.size() / 2, m.last ? 0 : i));
                if (m.last && i + 1 < t.count) continue;
                const int64_t half = tile.size() / 2;
                for (int64_t j = 0; j < half; ++j) {
                    const int64_t channel = m.last ? j % m.channels : i;
                    total[2 * channel] += tile[j];
                    total[2 * channel + 1] += tile[half + j];
                }
                std::fill(tile.begin(), tile.end(), 0);
            }
        }
#pragma omp critical
        {
            for (int64_t c = 0; c < 2 * m.channels; ++c) sums[c] += total[c];
            peak.join(own);
        }
    }
}

template <bool LAST>
Peak store(const float* x, int8_t* codes, int64_t length, int32_t* s1, int32_t* s2, const Rounder<float, false> round) {
    int32_t magnitude = 0, positive = 0, one = 0, two = 0;
#pragma omp simd reduction(max : magnitude, positive) reduction(+ : one, two)
    for (int64_t i = 0; i < length; ++i) {
        const int32_t b = bits_of(x[i]), m = magnitude_bits(x[i]);
        magnitude = m > magnitude ? m : magnitude;
        positive = b > positive ? b : positive;
        const int32_t a = int32_t(round.code(x[i], 0));
        codes[i] = int8_t(a);
        if (LAST) s1[i] += a, s2[i] += a * a;
        else one += a, two += a * a;
    }
    if (!LAST) *s1 += one, *s2 += two;
    return {magnitude, positive};
}

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
void send_all(const int8_t* g, const int8_t* a, float* out, const float* p, const float* q, const float* r,
              const Point& point, const Map& m, int threads, Peak& peak) {
    const Tiles t(m);
    const auto ps = spread(p, m, t), qs = spread(q, m, t), rs = spread(r, m, t);
    const Rounder<float, STOCHASTIC> round(point);
    const float *pp = ps.data(), *qq = qs.data(), *rr = rs.data();
    const bool last = m.last;
    over(point, m, t, threads, peak, [=](int64_t at, int64_t n, int64_t c, uint32_t position, const int32_t* index) {
        const auto run = !last ? send<false, STOCHASTIC, false>
                         : index ? send<true, STOCHASTIC, true>
                                 : send<true, STOCHASTIC, false>;
        return run(g + at, a + at, out + at, n, pp + c, qq + c, rr + c, position, index, round);
    });
}

float square_sum(const float* x, float factor, int64_t length) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length; ++i) sum += (x[i] * factor) * (x[i] * factor);
    return sum;
}

void add_squares(const float* x, float factor, float* sums, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) sums[i] += (x[i] * factor) * (x[i] * factor);
}

}  // namespace

extern "C" {

// squares [n_rows, C] = each instance's and channel's sum of (factor x)^2, to float's precision.
void qt_squares(const float* x, float factor, double* squares, int64_t n_rows, const Map* m, int threads) {
    const Tiles t(*m);
    const int64_t channels = m->channels, size = channels * m->plane;
    const bool last = m->last;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < n_rows; ++row) {
        double* out = squares + row * channels;
        std::vector<float> tile(last ? t.length : 0);
        std::fill(out, out + channels, 0.0);
        for (int64_t i = 0; i < t.count; ++i) {
            const float* from = x + row * size + i * t.length;
            const int64_t length = std::min(t.length, size - i * t.length);
            if (last) add_squares(from, factor, tile.data(), length);
            else out[i] = square_sum(from, factor, length);
        }
        for (int64_t j = 0; last && j < t.length; ++j) out[j % channels] += tile[j];
    }
}

// codes = x on the point's grid; sums [C, 2] += (sum of codes, sum of their squares). plane <= 2^16, |code| <= 127.
void qt_store(const float* x, int8_t* codes, int64_t* sums, const Point* p, const Map* m, int threads, Peak* peak) {
    const Rounder<float, false> round(*p);
    const bool last = m->last;
    channel_sums(*p, *m, Tiles(*m), threads, sums, *peak,
                 [=](int64_t at, int64_t n, int32_t* s1, int32_t* s2, int64_t) {
                     return (last ? store<true> : store<false>)(x + at, codes + at, n, s1, s2, round);
                 });
}

// out = gain a + offset on the point's grid.
void qt_norm(const int8_t* a, float* out, const float* gain, const float* offset, const Point* p, const Map* m,
             int threads, Peak* peak) {
    const Tiles t(*m);
    const auto gains = spread(gain, *m, t), offsets = spread(offset, *m, t);
    const Rounder<float, false> round(*p);
    const float *ga = gains.data(), *of = offsets.data();
    const bool last = m->last;
    over(*p, *m, t, threads, *peak, [=](int64_t at, int64_t n, int64_t c, uint32_t, const int32_t*) {
        return (last ? apply<true> : apply<false>)(a + at, out + at, n, ga + c, of + c, round);
    });
}

// kept = codes of g (g x unit) where the stored output (by gain, offset and the point) lies between above and below;
// sums [C, 2] += (sum kept, sum kept a).
void qt_norm_sums(const float* g, const int8_t* a, int8_t* kept, int64_t* sums, const float* gain, const float* offset,
                  float unit, float above, float below, const Point* p, const Map* m, int threads) {
    const Tiles t(*m);
    const auto gains = spread(gain, *m, t), offsets = spread(offset, *m, t);
    const Rounder<float, false> round(*p);
    const float *ga = gains.data(), *of = offsets.data();
    const bool last = m->last;
    Peak unused;
    channel_sums(*p, *m, t, threads, sums, unused,
                 [=](int64_t at, int64_t n, int32_t* s1, int32_t* s2, int64_t c) {
                     (last ? sum_errors<true> : sum_errors<false>)(g + at, a + at, kept + at, n, ga + c, of + c, unit,
                                                                   above, below, s1, s2, round);
                     return Peak();
                 });
}

// out = P kept + Q a + R on the point's grid.
void qt_norm_error(const int8_t* kept, const int8_t* a, float* out, const float* p, const float* q, const float* r,
                   const Point* point, const Map* m, int threads, Peak* peak) {
    (point->stochastic ? send_all<true> : send_all<false>)(kept, a, out, p, q, r, *point, *m, threads, *peak);
}
}
