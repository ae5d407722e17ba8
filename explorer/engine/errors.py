"""What can go wrong, said so that the reader knows the mend.

ExplorerError
├── SpecError               a setting out of its range
├── TraceError              a network that cannot be turned into a graph of sites
│   └── UnsupportedLayerError   a call without a spiking counterpart
├── DataError               images or labels that cannot be used
├── AssetError              a shipped file that is missing or damaged
├── CheckpointError         weights that cannot be loaded
└── Cancelled               the caller asked for a stop (not a fault)
"""

from __future__ import annotations

MESSAGE_MAX = 1_500  # characters: names and reasons in a message may come from a hostile file


class ExplorerError(Exception):
    """The root of all errors meant for the person at the screen; its message says what, where, and the mend.

    A message is cut in its middle at 1,500 characters, and what is no printable character becomes "?".
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(readable(str(message)))


def readable(text: str, most: int = MESSAGE_MAX) -> str:
    """Return a text fit for a screen: at most so many characters, none that moves a terminal's cursor."""
    if len(text) > most:
        text = f"{text[: most // 2]} [...] {text[-most // 2 :]}"
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


class SpecError(ExplorerError, ValueError):
    """A setting is out of its range."""


class TraceError(ExplorerError):
    """The network cannot be turned into a graph of sites."""


class UnsupportedLayerError(TraceError):
    """The network calls something that has no integrate-and-fire counterpart."""


class DataError(ExplorerError):
    """Images or labels cannot be used."""


class AssetError(ExplorerError):
    """A shipped file is missing or does not match its checksum."""


class CheckpointError(ExplorerError):
    """Weights cannot be loaded."""


class Cancelled(ExplorerError):
    """The caller asked the run to stop; what was kept so far is consistent."""
