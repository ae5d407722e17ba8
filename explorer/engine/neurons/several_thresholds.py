"""Several thresholds, signed: a step sends one spike of 1, 2, 4 or 8 thetas, or takes as much back. [Huang2025]

    v <- v + x;   n = the largest 2^k with v >= 3/4 2^k theta;   else n = -(the largest 2^k with v <= -3/4 2^k theta
    and m >= 2^k);   v <- v - n theta;   m <- m + n

So the nearest level fires, and no more is taken back than was sent. theta is the smallest of the N thresholds, N part
of the law's name; a spike counts how many of it it is worth. m need not be whole (see `simulation.differential`), so it
is compared with 2^-10 to spare, more than rounding can amount to.
"""

from typing import Any

from explorer.engine.neurons.law import Law, where


def step_2(v, m, x, theta):
    """Fire 1 or 2."""
    v = v + x
    two = theta + theta
    a1 = theta * 0.75
    a2 = two * 0.75
    up2 = v >= a2
    up1 = (v >= a1) & (v < a2)
    down2 = (v <= -a2) & (m >= 1.9990234375)
    down1 = (v <= -a1) & (m >= 0.9990234375) & (where(m >= 1.9990234375, v, theta) > -a2)
    v, m = where(up2, v - two, v), where(up2, m + 2, m)
    v, m = where(up1, v - theta, v), where(up1, m + 1, m)
    v, m = where(down2, v + two, v), where(down2, m - 2, m)
    v, m = where(down1, v + theta, v), where(down1, m - 1, m)
    return (up1, up2, down1, down2), v, m


def step_3(v, m, x, theta):
    """Fire 1, 2 or 4."""
    v = v + x
    two = theta + theta
    four = two + two
    a1 = theta * 0.75
    a2 = two * 0.75
    a4 = four * 0.75
    up4 = v >= a4
    up2 = (v >= a2) & (v < a4)
    up1 = (v >= a1) & (v < a2)
    down4 = (v <= -a4) & (m >= 3.9990234375)
    down2 = (v <= -a2) & (m >= 1.9990234375) & (where(m >= 3.9990234375, v, theta) > -a4)
    down1 = (v <= -a1) & (m >= 0.9990234375) & (where(m >= 1.9990234375, v, theta) > -a2)
    v, m = where(up4, v - four, v), where(up4, m + 4, m)
    v, m = where(up2, v - two, v), where(up2, m + 2, m)
    v, m = where(up1, v - theta, v), where(up1, m + 1, m)
    v, m = where(down4, v + four, v), where(down4, m - 4, m)
    v, m = where(down2, v + two, v), where(down2, m - 2, m)
    v, m = where(down1, v + theta, v), where(down1, m - 1, m)
    return (up1, up2, up4, down1, down2, down4), v, m


def step_4(v, m, x, theta):
    """Fire 1, 2, 4 or 8."""
    v = v + x
    two = theta + theta
    four = two + two
    eight = four + four
    a1 = theta * 0.75
    a2 = two * 0.75
    a4 = four * 0.75
    a8 = eight * 0.75
    up8 = v >= a8
    up4 = (v >= a4) & (v < a8)
    up2 = (v >= a2) & (v < a4)
    up1 = (v >= a1) & (v < a2)
    down8 = (v <= -a8) & (m >= 7.9990234375)
    down4 = (v <= -a4) & (m >= 3.9990234375) & (where(m >= 7.9990234375, v, theta) > -a8)
    down2 = (v <= -a2) & (m >= 1.9990234375) & (where(m >= 3.9990234375, v, theta) > -a4)
    down1 = (v <= -a1) & (m >= 0.9990234375) & (where(m >= 1.9990234375, v, theta) > -a2)
    v, m = where(up8, v - eight, v), where(up8, m + 8, m)
    v, m = where(up4, v - four, v), where(up4, m + 4, m)
    v, m = where(up2, v - two, v), where(up2, m + 2, m)
    v, m = where(up1, v - theta, v), where(up1, m + 1, m)
    v, m = where(down8, v + eight, v), where(down8, m - 8, m)
    v, m = where(down4, v + four, v), where(down4, m - 4, m)
    v, m = where(down2, v + two, v), where(down2, m - 2, m)
    v, m = where(down1, v + theta, v), where(down1, m - 1, m)
    return (up1, up2, up4, up8, down1, down2, down4, down8), v, m


_HOW: dict[str, Any] = {"memory": True, "fires_at": 0.75, "sized": True}
THRESHOLDS = (
    Law("thresholds_2", "Thresholds 1 and 2, signed", step_2, planes=(1, 2, -1, -2), **_HOW),
    Law("thresholds_3", "Thresholds 1, 2 and 4, signed", step_3, planes=(1, 2, 4, -1, -2, -4), **_HOW),
    Law("thresholds_4", "Thresholds 1, 2, 4 and 8, signed", step_4, planes=(1, 2, 4, 8, -1, -2, -4, -8), **_HOW),
)
