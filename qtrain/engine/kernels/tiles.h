// Loops over normalizations' tensors, with a constant or a sum for every channel.
#pragma once
#include <algorithm>
#include <vector>
#include "common.h"

// A tensor [n, C, H, W] as it lies: channels last (one run of H W C an image) or channels first (C planes of H W).
// Channels last, constants are repeated over a tile of whole pixels, so that loops are long whatever C is.
constexpr int64_t TILE = 256;

struct Tiles {
    int64_t length, count;
    explicit Tiles(const Place& m) {
        const int64_t image = m.channels * m.plane, pixels = (TILE + m.channels - 1) / m.channels;
        length = m.last ? std::min(image, pixels * m.channels) : m.plane;
        count = m.last ? (image + length - 1) / length : m.channels;
    }
};

inline std::vector<float> spread(const float* constant, const Place& p, const Tiles& t) {
    std::vector<float> tile(p.last ? t.length : p.channels);
    for (size_t i = 0; i < tile.size(); ++i) tile[i] = constant[p.last ? i % p.channels : i];
    return tile;
}

// body(begin, length, constant, position, index) for every tile or plane; `constant` is where its constants start.
template <class Body> Peak over(const Place& p, const Tiles& t, Body body) {
    Peak peak;
#pragma omp parallel num_threads(p.team())
    {
        Peak own;
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < p.n_rows; ++row) {
            const int64_t position = (p.rows ? p.rows[row] : row) * p.row_size;
            for (int64_t i = 0; i < t.count; ++i) {
                const int64_t at = i * t.length, left = p.row_size - at;
                own.join(body(row * p.row_size + at, left < t.length ? left : t.length, p.last ? 0 : i,
                              uint32_t(position) + (p.index ? 0 : uint32_t(at)), p.index ? p.index + at : nullptr));
            }
        }
#pragma omp critical
        peak.join(own);
    }
    return peak;
}

// Sums by channel of two numbers an element, body(begin, length, s1, s2, constant) adding to int32 tiles (or to one pair
// a plane). No number exceeds 127^2 in magnitude, so that MOST_ADDED of them stay within 32 bits.
constexpr int64_t MOST_ADDED = 1 << 17;

template <class Body> Peak channel_sums(const Place& p, const Tiles& t, int64_t* sums, Body body) {
    Peak peak;
#pragma omp parallel num_threads(p.team())
    {
        std::vector<int64_t> total(2 * p.channels);
        const int64_t half = p.last ? t.length : 1;
        std::vector<int32_t> tile(2 * half);
        const auto flush = [&](int64_t channel) {
            for (int64_t j = 0; j < half; ++j) {
                total[2 * channel] += tile[j];
                total[2 * channel + 1] += tile[half + j];
                if (++channel == p.channels) channel = 0;
            }
            std::fill(tile.begin(), tile.end(), 0);
        };
        Peak own;
        int64_t added = 0;
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < p.n_rows; ++row) {
            if (p.last && (added += t.count) > MOST_ADDED) flush(0), added = t.count;
            for (int64_t i = 0; i < t.count; ++i) {
                const int64_t at = i * t.length, left = p.row_size - at, constant = p.last ? 0 : i;
                const int64_t length = left < t.length ? left : t.length;
                own.join(body(row * p.row_size + at, length, tile.data(), tile.data() + half, constant));
                if (!p.last) flush(i);
            }
        }
        if (p.last) flush(0);
#pragma omp critical
        {
            for (int64_t c = 0; c < 2 * p.channels; ++c) sums[c] += total[c];
            peak.join(own);
        }
    }
    return peak;
}
