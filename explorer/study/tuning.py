"""Fine-tuning of one visitor's network, slice by slice: what the workshop's thread calls. Values in and out are plain.

The images are the calibration images of the chosen source; a quarter of them is held back, from the calibrated start as
well. Imports torch only inside functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from explorer.study import keys, library

if TYPE_CHECKING:
    from torch import Tensor

    from explorer.engine.finetune.progress import Progress
    from explorer.engine.finetune.tuning import Tuning

HELD_BACK = 0.25
IMAGES = (64, 128, 256, 512)
RATES = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
UPDATES_MAX = 2_000
LOOKS = 20  # at the held-back images, over a whole training


@dataclass(frozen=True)
class Wanted:
    """A fine-tuning: of which network, on which images, and how.

    method: dsr, hybrid or tandem; images: calibration images, those held back included; moved: training images are
    shifted, and mirrored every other time.
    """

    network: str
    source: str
    method: str = "dsr"
    T: int = 4
    updates: int = 200
    batch: int = 16
    rate: float = 2e-4
    images: int = 256
    moved: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Opened:
    """What is known before the first update.

    accuracy: share of the held-back images right at the start, ann: by the ANN; without labels, agreement with it.
    """

    sites: tuple[str, ...]
    trained: int
    held: int
    labelled: bool
    loss: float
    accuracy: float
    ann: float
    theta: dict[str, float]


@dataclass(frozen=True)
class Made:
    """A fine-tuned network as a file: its name, content, and the architecture that takes it.

    source: what an upload of it is told (a `NetworkSource`); preset: the data set whose scaling it wants.
    """

    name: str
    content: bytes
    architecture: str
    preset: str
    source: Any


_open: dict[str, Tuning] = {}


def architecture(name: str) -> str:
    """Return the architecture, with trained clips, that a network's fine-tuned weights fit; "" if there is none."""
    from explorer.zoo.architectures import ACTIVATIONS, CIFAR_ARCHITECTURES

    loaded = library.loaded(name)
    told = loaded.source.network if loaded.source is not None else loaded.card.recipe.get("architecture", "")
    base, _, activation = str(told).partition("-")
    known = base in CIFAR_ARCHITECTURES and activation in ("", *ACTIVATIONS)
    return f"{base}-clip" if known else ""


def begin(
    id: str,
    wanted: Wanted,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Opened:
    """Calibrate the network on the training images, and open its fine-tuning under an id.

    on_progress: called with (layers calibrated, layers).

    Raises:
        ExplorerError: network or images cannot be had, or the settings do not fit.
        Cancelled: stop said so.
    """
    import torch

    from explorer.engine import methods
    from explorer.engine.errors import DataError, SpecError
    from explorer.engine.finetune.tuning import Held, Tuning, TuningSpec
    from explorer.zoo import data
    from explorer.zoo.images import normalise
    from explorer.zoo.training.tuned import START

    every = max(1, wanted.updates // LOOKS)
    if wanted.updates > UPDATES_MAX:
        raise SpecError(
            f"updates: at most {UPDATES_MAX:,} here, got {wanted.updates:,}. Use the command line for more."
        )
    spec = TuningSpec(
        wanted.method,  # type: ignore[arg-type]  # it is checked there
        wanted.T,
        wanted.updates,
        wanted.batch,
        wanted.rate,
        judge_every=every,
        seed=wanted.seed,
    )
    loaded = library.loaded(wanted.network)
    origin = data.calibration_source(library.source(wanted.source), loaded.card)
    if isinstance(origin, data.LoosePictures | data.UploadedPictures):
        raise DataError(
            "These pictures are also those on which the network is judged, so nothing is trained on them. Choose "
            "images with a part of their own for calibration: the embedded ones, or a folder with train and val."
        )
    chosen = data.load_images(origin, loaded.card, n=wanted.images, part="calibration")
    images = normalise(chosen.images[:], loaded.card)
    labels = None if chosen.labels is None else torch.as_tensor(chosen.labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(wanted.seed))
    cut = round(HELD_BACK * len(images))
    held, rest = order[:cut], order[cut:]
    fit: Any = methods.parse(START)
    start = fit.fit(loaded.network, wanted.T, images[rest], stop, on_progress).snn
    given = Augmented(images[rest], None if labels is None else labels[rest], wanted.moved, wanted.seed)
    back = Held(images[held], None if labels is None else labels[held])
    tuning = Tuning(loaded.network, start, spec, given, back, stop)
    _open[id] = tuning
    first = tuning.judged[0]
    right = float((tuning.taught.argmax(1) == tuning.right).double().mean())
    theta = {name: float(value.detach().mean()) for name, value in zip(tuning.sites, tuning.net.theta, strict=True)}
    return Opened(
        tuple(tuning.sites), len(rest), len(held), labels is not None, first.loss, first.accuracy, right, theta
    )


def _found(id: str) -> Tuning:
    from explorer.engine.errors import SpecError

    if id not in _open:
        raise SpecError("The training is gone with the process that held it. Start it again.")
    return _open[id]


def advance(id: str, seconds: float) -> list[Progress]:
    """Do updates for about so long, at least one, and return the progress after each.

    Raises:
        ExplorerError: the loss is not finite any more, or the training is not here (any more).
    """
    tuning, end = _found(id), time.monotonic() + seconds
    done: list[Progress] = []
    while not tuning.done and (not done or time.monotonic() < end):
        done.append(tuning.step())
    return done


def finish(id: str, wanted: Wanted) -> Made:
    """Return the best state on the held-back images as a file that the app and the command line read.

    Raises:
        SpecError: the network's architecture has no place for trained thresholds.
    """
    from safetensors.torch import save

    from explorer.engine.errors import SpecError
    from explorer.zoo.own import NetworkSource
    from explorer.zoo.training.tuned import as_network

    tuning, fits, card = _found(id), architecture(wanted.network), library.loaded(wanted.network).card
    if not fits:
        raise SpecError(f"{keys.label(wanted.network)}: no file could hold its thresholds. Choose a shipped network.")
    net = as_network(tuning.result(), fits, len(card.classes), card.example())
    told = {
        "architecture": fits,
        "start_from": card.name,
        "spec": repr(tuning.spec),
        "best_update": str(tuning.best.update),
        "classes": ",".join(card.classes),
        "mean": repr(card.mean),
        "std": repr(card.std),
    }
    source = NetworkSource(fits, None, card.input_size, card.mean, card.std, card.classes, card.resize or None)
    content = save({name: value.contiguous() for name, value in net.state_dict().items()}, metadata=told)
    stem = keys.clean(keys.label(wanted.network)).split(".")[0].replace(" ", "-")
    return Made(f"{stem}-{wanted.method}-T{wanted.T}.safetensors", content, fits, card.dataset or "CIFAR-10", source)


def drop(id: str) -> None:
    """Forget a fine-tuning."""
    _open.pop(id, None)


class Augmented:
    """Training images [N, C, H, W], shifted by up to an eighth of their side, mirrored every other turn if `moved`.

    Pixels that come in from outside repeat the border. The same image and turn look the same, whatever the batch.
    """

    def __init__(self, images: Tensor, labels: Tensor | None, moved: bool, seed: int) -> None:
        self.images, self.labels, self.moved, self.seed = images, labels, moved, seed

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor, turn: int) -> Tensor:
        """See `engine.finetune.tuning.Pictures`."""
        import torch
        import torch.nn.functional as F

        images = self.images[index]
        if not self.moved:
            return images
        height, width = images.shape[-2:]
        top, left = height // 8, width // 8
        drawn = torch.Generator().manual_seed(1_000_003 * self.seed + turn)
        places = torch.stack([torch.randint(0, 2 * m + 1, (len(self),), generator=drawn) for m in (top, left)], 1)
        first = torch.randint(0, 2, (len(self),), generator=torch.Generator().manual_seed(self.seed))
        padded = F.pad(images, (left, left, top, top), mode="replicate")
        seen = []
        for image, (y, x), side in zip(padded, places[index].tolist(), first[index].tolist(), strict=True):
            part = image[:, y : y + height, x : x + width]
            seen.append(part.flip(-1) if (side + turn) % 2 else part)
        return torch.stack(seen)
