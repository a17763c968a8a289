/* The kernels as plain loops, the way one would write them first. */
#include "kernels.h"

void forward(const struct conv *c, struct scale s, const int8_t *x, const int8_t *w, const int32_t *bias, int8_t *y,
             int16_t *columns) {
    int per_group = c->channels / c->groups, taps = c->kernel * c->kernel;
    (void)columns;
    for (int row = 0; row < c->out_side; row++)
        for (int column = 0; column < c->out_side; column++)
            for (int k = 0; k < c->out; k++) {
                int32_t sum = bias ? bias[k] : 0;
                for (int fy = 0; fy < c->kernel; fy++)
                    for (int fx = 0; fx < c->kernel; fx++) {
                        int iy = row * c->stride + fy - c->pad, ix = column * c->stride + fx - c->pad;
                        if (iy < 0 || iy >= c->side || ix < 0 || ix >= c->side) continue;
                        if (c->groups > 1) {
                            sum += x[(iy * c->side + ix) * c->out + k] * w[(fy * c->kernel + fx) * c->out + k];
                            continue;
                        }
                        for (int i = 0; i < per_group; i++)
                            sum += x[(iy * c->side + ix) * c->channels + i] *
                                   w[(k * taps + fy * c->kernel + fx) * per_group + i];
                    }
                *y++ = requantized(sum, s);
            }
}

void input_error(const struct conv *c, struct scale s, const int8_t *dy, const int8_t *w, int8_t *dx, int8_t *rotated,
                 int16_t *columns) {
    int taps = c->kernel * c->kernel;
    (void)rotated, (void)columns;
    for (int row = 0; row < c->side; row++)
        for (int column = 0; column < c->side; column++)
            for (int i = 0; i < c->channels; i++) {
                int32_t sum = 0;
                for (int fy = 0; fy < c->kernel; fy++)
                    for (int fx = 0; fx < c->kernel; fx++) {
                        int oy = row + c->pad - fy, ox = column + c->pad - fx;
                        if (oy < 0 || oy >= c->out_side || ox < 0 || ox >= c->out_side) continue;
                        for (int k = 0; k < c->out; k++)
                            sum += dy[(oy * c->out_side + ox) * c->out + k] *
                                   w[(k * taps + fy * c->kernel + fx) * c->channels + i];
                    }
                *dx++ = requantized(sum, s);
            }
}

void weight_gradient(const struct conv *c, const int8_t *x, const int8_t *dy, int32_t *dw, int16_t *columns,
                     int16_t *errors) {
    (void)columns, (void)errors;
    for (int k = 0; k < c->out; k++)
        for (int fy = 0; fy < c->kernel; fy++)
            for (int fx = 0; fx < c->kernel; fx++)
                for (int i = 0; i < c->channels; i++) {
                    int32_t sum = 0;
                    for (int row = 0; row < c->out_side; row++)
                        for (int column = 0; column < c->out_side; column++) {
                            int iy = row * c->stride + fy - c->pad, ix = column * c->stride + fx - c->pad;
                            if (iy < 0 || iy >= c->side || ix < 0 || ix >= c->side) continue;
                            sum += x[(iy * c->side + ix) * c->channels + i] * dy[(row * c->out_side + column) * c->out + k];
                        }
                    *dw++ = sum;
                }
}
