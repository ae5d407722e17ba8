"""Integrate and fire, reset by subtraction. [Rueckauer2017, Bu2022]

    v <- v + x;  z = [v >= theta];  v <- v - theta z

What exceeds the threshold stays: reset to zero would bias every rate down.
"""

from explorer.engine.neurons.law import Law, where


def step(v, m, x, theta):
    """Fire where the potential reaches the threshold."""
    v = v + x
    z = v >= theta
    return (z,), where(z, v - theta, v), m


INTEGRATE_AND_FIRE = Law("integrate_and_fire", "Integrate and fire", step)
