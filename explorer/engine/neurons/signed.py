"""Signed spikes with memory. [Wang2022]

    v <- v + x;  z = +1 if v >= theta,  -1 if v <= -theta and m > 0,  else 0;  v <- v - theta z;  m <- m + z

A neuron that has sent too much, because its input came early and was taken back later, takes a spike back. It never
takes back more than it sent, so the sum stays at or above zero, as the rectifier's output does.
"""

from explorer.engine.neurons.law import Law, where


def step(v, m, x, theta):
    """Fire at the threshold; take a spike back at minus the threshold while any is out."""
    v = v + x
    up = v >= theta
    down = (v <= -theta) & (m > 0)
    v = where(up, v - theta, where(down, v + theta, v))
    m = where(up, m + 1, where(down, m - 1, m))
    return (up, down), v, m


SIGNED = Law("signed", "Signed spikes with memory", step, planes=(1, -1), memory=True)
