"""Settings resolved once: the network, its card, the images and the spiking network that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from explorer.study import library
from explorer.study.library import Pictures
from explorer.study.memo import kept
from explorer.study.settings import Settings
from explorer.study.translate import conversion_spec, simulation_spec


def run_key(settings: Settings) -> Settings:
    """Return what decides a run's spikes: not how many images are wanted, nor which image or neuron is looked at."""
    return replace(settings.of_run(), images=16)


@dataclass(frozen=True, eq=False)
class Case:
    """One setting of everything. snn: the converted network."""

    settings: Settings
    network: Any
    card: Any
    pictures: Pictures
    snn: Any

    def simulate(self, begin: int, end: int, record: Any = None, stop: Callable[[], bool] | None = None) -> Any:
        """Simulate images [begin, end); trains are taken from and put into the shared store."""
        from explorer import engine

        spec = simulation_spec(self.settings, record)
        return engine.simulate(self.snn, self.pictures.inputs(begin, end), spec, store=library.store(), stop=stop)

    @property
    def device(self) -> str:
        """Where a simulation of these settings runs, in words."""
        import torch

        if self.settings.device != "cpu" and torch.cuda.is_available():
            return torch.cuda.get_device_name()
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def case(settings: Settings, stop: Callable[[], bool] | None = None) -> Case:
    """Return the case of these settings; stop: asked while thresholds are being found, which may take long.

    Raises:
        ExplorerError: the network or the images cannot be had, the settings do not fit them, or a run the memory.
        Cancelled: stop said so.
    """
    return _case(run_key(settings), stop=stop)


@kept(64)
def _case(settings: Settings, stop: Callable[[], bool] | None = None) -> Case:
    from explorer import engine
    from explorer.zoo.memory import require_run_memory

    loaded = library.loaded(settings.network)
    require_run_memory(loaded.network, settings.T, loaded.card.name)
    thresholds = library.calibration(settings.network, settings.source, library.calibration_key(settings), stop=stop)
    snn = engine.convert(loaded.network, thresholds, conversion_spec(settings))
    pictures = library.pictures(settings.network, settings.source)
    return Case(settings, loaded.network, loaded.card, pictures, snn)
