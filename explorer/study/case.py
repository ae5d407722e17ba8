"""Settings resolved once: the network, its card, the images and the spiking network that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from explorer.study import library
from explorer.study.library import Pictures
from explorer.study.memo import kept
from explorer.study.settings import Settings
from explorer.study.translate import conversion_spec


def run_key(settings: Settings) -> Settings:
    """Return what decides a run's spikes: not how many images are wanted, nor which image or neuron is looked at."""
    key = replace(settings.of_run(), images=16)
    if not settings.method:
        return key
    plain = Settings()
    unused = {name: getattr(plain, name) for name in ("rule", "p", "per", "law", "start", "v_init", "spread", "seed")}
    return replace(key, **unused)


@dataclass(frozen=True, eq=False)
class Case:
    """One setting of everything. fitted: the conversion, and how it is run and read."""

    settings: Settings
    network: Any
    card: Any
    pictures: Pictures
    fitted: Any

    @property
    def snn(self) -> Any:
        """The converted network, before what a method does image by image."""
        return self.fitted.snn

    def watch(self, begin: int, end: int, stop: Callable[[], bool] | None = None) -> Any:
        """Run images [begin, end) and keep every neuron; fewer images where they do not fit the memory together.

        Spike trains are taken from and put into the shared store.
        """
        count = self.fitted.together(end - begin, self.settings.device)
        inputs = self.pictures.inputs(begin, begin + count)
        return self.fitted.watch(inputs, store=library.store(), stop=stop, device=self.settings.device)

    @property
    def device(self) -> str:
        """Where a simulation of these settings runs, in words."""
        import torch

        if self.settings.device != "cpu" and torch.cuda.is_available():
            return torch.cuda.get_device_name()
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def case(
    settings: Settings,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Case:
    """Return the case of these settings; stop: asked while thresholds are being found, which may take long.

    on_progress: called with (layers done, layers) by methods that tell how far they are.

    Raises:
        ExplorerError: the network or the images cannot be had, the settings do not fit them, or a run the memory.
        Cancelled: stop said so.
    """
    return _case(run_key(settings), stop=stop, on_progress=on_progress)


@kept(64)
def _case(
    settings: Settings,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Case:
    from explorer import engine
    from explorer.engine.methods import Fitted, edited, get
    from explorer.zoo.memory import require_run_memory

    loaded = library.loaded(settings.network)
    require_run_memory(loaded.network, settings.T, loaded.card.name)
    pictures = library.pictures(settings.network, settings.source)
    if settings.method:
        T = settings.T if settings.depends_on_T else 0
        found = library.fitted(
            settings.network, settings.source, settings.method, T, stop=stop, on_progress=on_progress
        )
        spec = conversion_spec(settings)
        fitted = edited(replace(found, T=settings.T), spec.threshold_scale, dict(spec.sites))
        return Case(settings, loaded.network, loaded.card, pictures, fitted)
    thresholds = library.calibration(settings.network, settings.source, library.calibration_key(settings), stop=stop)
    snn = engine.convert(loaded.network, thresholds, conversion_spec(settings))
    return Case(settings, loaded.network, loaded.card, pictures, Fitted(get("opi")(), snn, settings.T))
