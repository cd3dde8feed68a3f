/* The floor of `rheo bench`: the kernels' own arithmetic as plain C loops over all samples, every size a constant.
   Built by tools/bench.py with gcc -O3 -march=native. */

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Five one-pole low-passes in a row, s <- s + a (x - s): x (t, c), a (5), s (5, c), y (t, c). */
INLINE void chain(const int c, long t, const double *restrict x, const double *restrict a, double *restrict s,
                  double *restrict y) {
    double *restrict s0 = s, *restrict s1 = s + c, *restrict s2 = s + 2 * c, *restrict s3 = s + 3 * c;
    double *restrict s4 = s + 4 * c;
    for (long k = 0; k < t; k++)
        for (int i = 0; i < c; i++) { /* written out, as gcc then vectorises it */
            s0[i] += a[0] * (x[k * c + i] - s0[i]);
            s1[i] += a[1] * (s0[i] - s1[i]);
            s2[i] += a[2] * (s1[i] - s2[i]);
            s3[i] += a[3] * (s2[i] - s3[i]);
            s4[i] += a[4] * (s3[i] - s4[i]);
            y[k * c + i] = s4[i];
        }
}

void chain_1(long t, const double *x, const double *a, double *s, double *y) { chain(1, t, x, a, s, y); }
void chain_96(long t, const double *x, const double *a, double *s, double *y) { chain(96, t, x, a, s, y); }

/* nodes/kalman.py: predict and correct, in its words. The belief lives on the stack. */
#define MAX_D 8

typedef struct {
    double mu[MAX_D], Sigma[MAX_D][MAX_D], m[MAX_D], M[MAX_D][MAX_D];
    double L[MAX_D][MAX_D], C[MAX_D][MAX_D], U[MAX_D][MAX_D], b[MAX_D];
    int begun;
} Belief;

INLINE void begin(const int d, const double *S, Belief *s) {
    memset(s, 0, sizeof *s);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++)
            s->Sigma[i][j] = S[i * d + j];
}

INLINE void predict(const int d, const double *restrict A, const double *restrict Gamma, Belief *restrict s) {
    if (!s->begun) {
        s->begun = 1;
        for (int i = 0; i < d; i++) {
            s->m[i] = s->mu[i];
            for (int j = 0; j < d; j++)
                s->M[i][j] = s->Sigma[i][j];
        }
        return;
    }
    for (int i = 0; i < d; i++) {
        s->m[i] = 0;
        for (int j = 0; j < d; j++)
            s->U[i][j] = 0;
        for (int k = 0; k < d; k++) {
            double a = A[i * d + k];
            s->m[i] += a * s->mu[k];
            for (int j = 0; j < d; j++)
                s->U[i][j] += a * s->Sigma[k][j];
        }
    }
    for (int i = 0; i < d; i++) {
        s->mu[i] = s->m[i];
        for (int j = 0; j <= i; j++) {
            double a = Gamma[i * d + j];
            for (int k = 0; k < d; k++)
                a += s->U[i][k] * A[j * d + k];
            s->M[i][j] = s->M[j][i] = s->Sigma[i][j] = s->Sigma[j][i] = a;
        }
    }
}

INLINE void cholesky(const int d, double M[MAX_D][MAX_D], double L[MAX_D][MAX_D]) {
    for (int j = 0; j < d; j++) {
        double a = M[j][j];
        for (int k = 0; k < j; k++)
            a -= L[j][k] * L[j][k];
        for (int i = 0; i < j; i++)
            L[i][j] = 0;
        double p = sqrt(a);
        L[j][j] = p;
        for (int i = j + 1; i < d; i++) {
            double c = M[i][j];
            for (int k = 0; k < j; k++)
                c -= L[i][k] * L[j][k];
            L[i][j] = c / p;
        }
    }
}

INLINE void correct(const int d, const double *restrict P, Belief *restrict s) {
    cholesky(d, s->M, s->L);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            double a = 0;
            for (int k = j; k < d; k++)
                a += P[i * d + k] * s->L[k][j];
            s->U[i][j] = a;
        }
    for (int i = 0; i < d; i++)
        for (int j = 0; j <= i; j++) {
            double a = i == j;
            for (int k = i; k < d; k++)
                a += s->L[k][i] * s->U[k][j];
            s->Sigma[i][j] = a;
        }
    cholesky(d, s->Sigma, s->C);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            double a = s->L[j][i];
            for (int k = 0; k < i; k++)
                a -= s->C[i][k] * s->U[k][j];
            s->U[i][j] = a / s->C[i][i];
        }
    for (int i = 0; i < d; i++)
        for (int j = 0; j <= i; j++) {
            double a = 0;
            for (int k = 0; k < d; k++)
                a += s->U[k][i] * s->U[k][j];
            s->Sigma[i][j] = s->Sigma[j][i] = a;
        }
    for (int i = 0; i < d; i++) {
        double a = s->b[i];
        for (int k = 0; k < d; k++)
            a -= P[i * d + k] * s->m[k];
        s->b[i] = a;
    }
    for (int i = 0; i < d; i++) {
        double a = s->m[i];
        for (int k = 0; k < d; k++)
            a += s->Sigma[i][k] * s->b[k];
        s->mu[i] = a;
    }
}

/* x (t, n), A Gamma S P (d, d), K (n, d), x_mean (n), z_mean (d), y (t, d) */
INLINE void kalman(const int d, const int n, long t, const double *restrict x, const double *restrict A,
                   const double *restrict Gamma, const double *restrict S, const double *restrict K,
                   const double *restrict P, const double *restrict x_mean, const double *restrict z_mean,
                   double *restrict y) {
    Belief s;
    begin(d, S, &s);
    for (long k = 0; k < t; k++) {
        predict(d, A, Gamma, &s);
        double b[MAX_D] = {0};
        for (int j = 0; j < n; j++) {
            double xj = x[k * n + j] - x_mean[j];
            for (int i = 0; i < d; i++)
                b[i] += xj * K[j * d + i];
        }
        memcpy(s.b, b, sizeof b);
        correct(d, P, &s);
        for (int i = 0; i < d; i++)
            y[k * d + i] = s.mu[i] + z_mean[i];
    }
}

/* nodes/dkf.py over nodes/ridge.py: x (t, n), W (n, d), c (d), x_mean (n); A Gamma Q P B (d, d), z_mean (d), y (t, d) */
INLINE void dkf(const int d, const int n, long t, const double *restrict x, const double *restrict W,
                const double *restrict c, const double *restrict x_mean, const double *restrict A,
                const double *restrict Gamma, const double *restrict Q, const double *restrict P,
                const double *restrict B, const double *restrict z_mean, double *restrict y) {
    Belief s;
    begin(d, Q, &s);
    s.begun = 1;
    for (long k = 0; k < t; k++) {
        double f[MAX_D] = {0};
        for (int i = 0; i < d; i++)
            f[i] = c[i];
        for (int j = 0; j < n; j++) {
            double xj = x[k * n + j] - x_mean[j];
            for (int i = 0; i < d; i++)
                f[i] += xj * W[j * d + i];
        }
        for (int i = 0; i < d; i++)
            f[i] -= z_mean[i];
        if (k == 0) {
            memcpy(s.mu, f, sizeof f);
        } else {
            predict(d, A, Gamma, &s);
            for (int i = 0; i < d; i++) {
                double a = 0;
                for (int j = 0; j < d; j++)
                    a += B[i * d + j] * f[j];
                s.b[i] = a;
            }
            correct(d, P, &s);
        }
        for (int i = 0; i < d; i++)
            y[k * d + i] = s.mu[i] + z_mean[i];
    }
}

#define DECODERS(d)                                                                                              \
    void kalman_##d(long t, const double *x, const double *A, const double *Gamma, const double *S,              \
                    const double *K, const double *P, const double *x_mean, const double *z_mean, double *y) {   \
        kalman(d, 96, t, x, A, Gamma, S, K, P, x_mean, z_mean, y);                                               \
    }                                                                                                            \
    void dkf_##d(long t, const double *x, const double *W, const double *c, const double *x_mean,                \
                 const double *A, const double *Gamma, const double *Q, const double *P, const double *B,        \
                 const double *z_mean, double *y) {                                                              \
        dkf(d, 96, t, x, W, c, x_mean, A, Gamma, Q, P, B, z_mean, y);                                            \
    }
DECODERS(4)
DECODERS(6)

/* As fast as n float32 can be read, t times: the floor of a step that needs all its parameters once. n is a multiple of
   64; y (64). */
void read_floats(long t, long n, const float *restrict x, double *restrict y) {
    for (long k = 0; k < t; k++) {
        float sum[64] = {0};
        for (long i = 0; i < n; i += 64)
            for (int j = 0; j < 64; j++)
                sum[j] += x[i + j];
        for (int j = 0; j < 64; j++)
            y[j] = y[j] / 2 + sum[j];
    }
}

/* nodes/hmm_glm.py: a bin of N neurons in S states, the past of K bins through one filter, sigmoid, no lag. x (t, N),
   W (N + 1, S N), Pi log_Pi (S, S), p0 log_p0 (S), phi (K), enter (1), y (t, S + 2) */
#define STATES 5
#define NEURONS 20
#define PAST 5
#define LEAST 1e-8

void hmm_glm_5_20(long t, const double *restrict x, const double *restrict W, const double *restrict Pi,
                  const double *restrict log_Pi, const double *restrict p0, const double *restrict log_p0,
                  const double *restrict phi, const double *restrict enter, double *restrict y) {
    enum { S = STATES, N = NEURONS, K = PAST, SN = S * N };
    double past[K][N] = {{0}}, alpha[S] = {0}, delta[S] = {0}, u[SN], h[N], p[S], ell[S], e[S], fresh[S];
    int at = 0, label = 0;
    volatile int back[S];
    for (long k = 0; k < t; k++) {
        const double *c = x + k * N;
        for (int n = 0; n < N; n++)
            h[n] = 0;
        for (int b = 0; b < K; b++)
            for (int n = 0; n < N; n++)
                h[n] += phi[b] * past[(at + K - 1 - b) % K][n];
        for (int n = 0; n < N; n++)
            past[at][n] = isfinite(c[n]) && c[n] >= 0 ? c[n] : 0;
        at = (at + 1) % K;
        for (int i = 0; i < SN; i++)
            u[i] = W[N * SN + i];
        for (int m = 0; m < N; m++)
            if (h[m] != 0)
                for (int i = 0; i < SN; i++)
                    u[i] += h[m] * W[m * SN + i];
        double constant = 0, most = -INFINITY, total = 0;
        for (int n = 0; n < N; n++)
            if (c[n] > 1 && isfinite(c[n]))
                constant -= lgamma(c[n] + 1);
        for (int s = 0; s < S; s++) {
            double sum = constant;
            for (int n = 0; n < N; n++)
                if (isfinite(c[n]) && c[n] >= 0) {
                    double f = LEAST + (1 - LEAST) / (1 + exp(-fmin(fmax(u[s * N + n], -500), 500)));
                    sum += c[n] == 0 ? -f : c[n] * log(f + LEAST) - f;
                }
            ell[s] = sum;
            most = fmax(most, sum);
        }
        for (int j = 0; j < S; j++) {
            p[j] = k ? 0 : p0[j];
            for (int i = 0; k && i < S; i++)
                p[j] += alpha[i] * Pi[i * S + j];
            e[j] = exp(ell[j] - most);
        }
        for (int s = 0; s < S; s++) {
            alpha[s] = fmax(p[s] * e[s], 1e-300);
            total += alpha[s];
        }
        double top = -INFINITY;
        for (int j = 0; j < S; j++) {
            alpha[j] /= total;
            int best = 0;
            for (int i = 1; i < S; i++)
                if (delta[i] + log_Pi[i * S + j] > delta[best] + log_Pi[best * S + j])
                    best = i;
            back[j] = best;
            fresh[j] = (k ? delta[best] + log_Pi[best * S + j] : log_p0[j]) + ell[j];
            top = fmax(top, fresh[j]);
        }
        int found = 0;
        for (int j = 0; j < S; j++) {
            delta[j] = fresh[j] - top;
            if (delta[j] > delta[found])
                found = j;
        }
        if (!k || alpha[found] >= enter[0])
            label = found;
        for (int s = 0; s < S; s++)
            y[k * (S + 2) + s] = alpha[s];
        y[k * (S + 2) + S] = label;
        y[k * (S + 2) + S + 1] = most + log(total);
    }

}

/* nodes/arphmm.py with one channel and no failures, as the paper has it: x (t), A (Q, Q), pi (Q), B (Q, P + 1) of
   y = -B [lags, 1] + N(0, s2), y (t, 7): state, sample, predicted, z, score, pit, 0 */
INLINE void arphmm(const int Q, const int P, long t, const double *restrict x, const double *restrict A,
                   const double *restrict pi, const double *restrict B, const double *restrict s2,
                   double *restrict y) {
    double alpha[16], p[16], m[16], b[16], lags[16] = {0};
    for (long k = 0; k < t; k++) {
        double *out = y + 7 * k;
        out[1] = x[k];
        out[6] = 0;
        int best = 0;
        if (k < P) {
            for (int i = 0; i < Q; i++)
                alpha[i] = pi[i];
            out[2] = out[3] = out[4] = out[5] = NAN;
        } else {
            double mean = 0, square = 0, pit = 0, top = -INFINITY, sum = 0;
            for (int j = 0; j < Q; j++) {
                p[j] = k == P ? pi[j] : 0;
                if (k > P)
                    for (int i = 0; i < Q; i++)
                        p[j] += alpha[i] * A[i * Q + j];
            }
            for (int i = 0; i < Q; i++) {
                m[i] = -B[i * (P + 1) + P];
                for (int j = 0; j < P; j++)
                    m[i] -= B[i * (P + 1) + j] * lags[j];
                mean += p[i] * m[i];
                square += p[i] * (s2[i] + m[i] * m[i]);
            }
            for (int i = 0; i < Q; i++) {
                double e = x[k] - m[i];
                pit += p[i] * 0.5 * erfc(-e / sqrt(2 * s2[i]));
                b[i] = -0.5 * (e * e / s2[i] + log(2 * M_PI * s2[i]));
                if (b[i] > top)
                    top = b[i];
            }
            for (int i = 0; i < Q; i++) {
                alpha[i] = p[i] * exp(b[i] - top);
                sum += alpha[i];
            }
            for (int i = 0; i < Q; i++)
                alpha[i] /= sum;
            out[2] = mean;
            out[3] = (x[k] - mean) / sqrt(square - mean * mean);
            out[4] = log(sum) + top;
            out[5] = pit;
        }
        for (int i = 1; i < Q; i++)
            if (alpha[i] > alpha[best])
                best = i;
        out[0] = best;
        for (int j = P - 1; j > 0; j--)
            lags[j] = lags[j - 1];
        lags[0] = x[k];
    }
}

void arphmm_6_7(long t, const double *x, const double *A, const double *pi, const double *B, const double *s2,
                double *y) {
    arphmm(6, 7, t, x, A, pi, B, s2, y);
}
