"""Signed spikes that are taken back as soon as the charge is spent.

    v <- v + x;  z = +1 if v >= theta,  -1 if v < 0 and m > 0,  else 0;  v <- v - theta z;  m <- m + z

As `signed`, but the potential of a neuron that has fired does not rest below zero. Where it ends in [0, theta), the
count is the staircase of the mean input whatever the order of the spikes, n = floor((v(0) + sum x) / theta), and what
is left is quantisation alone. One spike a step goes out or comes back, so charge that comes, or is taken away, in the
last steps alone is told in part: v(T) is then theta or more, or below zero.
"""

from explorer.engine.neurons.law import Law, where


def step(v, m, x, theta):
    """Fire at the threshold; take a spike back below zero while any is out."""
    v = v + x
    up = v >= theta
    down = (v < 0) & (m > 0)
    v = where(up, v - theta, where(down, v + theta, v))
    m = where(up, m + 1, where(down, m - 1, m))
    return (up, down), v, m


SIGNED_AT_ZERO = Law("signed_at_zero", "Signed spikes, taken back at zero", step, planes=(1, -1), memory=True)
