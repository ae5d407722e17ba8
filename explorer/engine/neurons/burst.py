"""Burst spikes: a neuron sends up to G spikes in one step. [Li2022]

    v <- v + x;  n = clip(floor(v / theta), 0, G);  v <- v - theta n

n is written in binary by the planes 1, 2, 4: a neuron whose charge came late catches up. G is part of the law's name.
"""

from explorer.engine.neurons.law import Law, where


def step_2(v, m, x, theta):
    """Fire up to 2 spikes."""
    v = v + x
    two = theta + theta
    twos = v >= two
    ones = (v >= theta) & (v < two)
    return (ones, twos), where(twos, v - two, where(ones, v - theta, v)), m


def step_3(v, m, x, theta):
    """Fire up to 3 spikes."""
    v = v + x
    two = theta + theta
    twos = v >= two
    v = where(twos, v - two, v)
    ones = v >= theta
    return (ones, twos), where(ones, v - theta, v), m


def step_4(v, m, x, theta):
    """Fire up to 4 spikes."""
    v = v + x
    two = theta + theta
    four = two + two
    fours = v >= four
    twos = (v >= two) & (v < four)
    low = where(twos, v - two, v)
    ones = (low >= theta) & (v < four)
    return (ones, twos, fours), where(fours, v - four, where(ones, low - theta, low)), m


def step_5(v, m, x, theta):
    """Fire up to 5 spikes."""
    v = v + x
    two = theta + theta
    four = two + two
    fours = v >= four
    twos = (v >= two) & (v < four)
    v = where(fours, v - four, where(twos, v - two, v))
    ones = v >= theta
    return (ones, twos, fours), where(ones, v - theta, v), m


BURSTS = (
    Law("burst_2", "Bursts of up to 2 spikes", step_2, planes=(1, 2), exclusive=True),
    Law("burst_3", "Bursts of up to 3 spikes", step_3, planes=(1, 2), exclusive=False),
    Law("burst_4", "Bursts of up to 4 spikes", step_4, planes=(1, 2, 4), exclusive=False, limit=4),
    Law("burst_5", "Bursts of up to 5 spikes", step_5, planes=(1, 2, 4), exclusive=False, limit=5),
)
