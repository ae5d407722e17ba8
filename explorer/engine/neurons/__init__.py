"""The spiking laws. To add one: write its file, name it in LAWS, and test it against a loop of single neurons."""

from explorer.engine.errors import SpecError
from explorer.engine.neurons.burst import BURSTS
from explorer.engine.neurons.integrate_and_fire import INTEGRATE_AND_FIRE
from explorer.engine.neurons.law import Law
from explorer.engine.neurons.several_thresholds import THRESHOLDS
from explorer.engine.neurons.signed import SIGNED
from explorer.engine.neurons.signed_at_zero import SIGNED_AT_ZERO

LAWS = {law.name: law for law in (INTEGRATE_AND_FIRE, SIGNED, SIGNED_AT_ZERO, *BURSTS, *THRESHOLDS)}


def law_named(name: str) -> Law:
    """Return a law by its name.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in LAWS:
        raise SpecError(f"law: {name!r} is no spiking law. Choose one of {', '.join(LAWS)}.")
    return LAWS[name]


__all__ = ["INTEGRATE_AND_FIRE", "LAWS", "SIGNED", "SIGNED_AT_ZERO", "Law", "law_named"]
