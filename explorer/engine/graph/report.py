"""What the conversion does to a network, in words: for the command line and the app alike."""

from __future__ import annotations

from dataclasses import dataclass

from explorer.engine.graph.network import Network, Unsupported

HEAD = ("call", "becomes", "shape", "note")
BECOMES = {
    "site": "neurons",
    "pool": "maximum of counts",
    "affine": "current",
    "folded": "current, batch norm folded in",
    "image": "pixels, computed once",
    "note": "note",
    "unsupported": "nothing: no rule",
}


@dataclass(frozen=True)
class ConversionReport:
    """Every call of a network, and the calls without a rule.

    lines: (call, what it becomes, its output's shape without the batch, note), in the order of calls.
    """

    lines: tuple[tuple[str, str, str, str], ...]
    sites: int
    neurons: int
    folded: int
    approximate: int
    unsupported: tuple[Unsupported, ...]

    def summary(self) -> str:
        """Return the report in one sentence."""
        return (
            f"{self.sites} sites with {self.neurons:,} neurons; {self.folded} batch norms folded (exact); "
            f"{self.approximate} max pools (exact only for many time-steps); "
            f"{len(self.unsupported)} calls without a rule"
        )


def conversion_report(network: Network) -> ConversionReport:
    """Return what each call of a network becomes, what is folded, what is approximate, what has no rule."""
    kinds = [row.kind for row in network.rows]
    return ConversionReport(
        tuple((row.node, BECOMES[row.kind], "x".join(map(str, row.shape)), row.note) for row in network.rows),
        len(network.sites),
        sum(site.neurons for site in network.sites),
        kinds.count("folded"),
        kinds.count("pool"),
        network.unsupported,
    )
