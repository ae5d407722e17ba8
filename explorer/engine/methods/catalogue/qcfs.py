"""QCFS: the network was trained with the staircase of its neurons. [Bu2022b]

    a = lambda / L clip(floor(z L / lambda + 1/2), 0, L)  becomes  theta = lambda, v(0) = theta / 2

T. Bu, W. Fang, J. Ding, P. Dai, Z. Yu, T. Huang, *Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency
spiking neural networks*, ICLR 2022. The training is what makes the method; a network without such activations is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from explorer.engine.errors import SpecError
from explorer.engine.graph import Network
from explorer.engine.graph.qcfs import QuantisedClip
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method


def is_quantised(network: Network) -> bool:
    """Tell whether every site of a network is a quantised activation."""
    nodes = [network.node(node) for node in network.site_nodes.values()]
    modules = network.modules
    return all(n.op == "call_module" and isinstance(modules[str(n.target)], QuantisedClip) for n in nodes)


@dataclass(frozen=True, kw_only=True)
class QCFS(Method):
    """theta = lambda, v(0) = theta / 2, on a network trained for it."""

    key = "qcfs"
    citation = "Bu et al. 2022b"
    equation = r"a = \frac{\lambda}{L}\,\mathrm{clip}(\lfloor zL/\lambda + 1/2 \rfloor, 0, L)"
    about = (
        "The ANN is trained with the very staircase that spiking neurons of L steps have, so conversion adds no "
        "quantisation error at T = L; what is left is unevenness, the order in which spikes arrive."
    )
    refuses = {"threshold": "The thresholds are trained."}

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`.

        Raises:
            SpecError: the network was not trained with quantised activations.
        """
        if not is_quantised(probe.network):
            raise SpecError(
                "qcfs: this network was not trained with quantised activations (QuantisedClip at every site). Choose "
                "one that was, or the method opi, which starts the same way."
            )
        return Fitted(self, self.base(probe, T), T)
