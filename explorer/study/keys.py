"""Names of what visitors upload: a digest of the content and options, and a label that people can read.

`upload:0123456789abcdef:net.pt (resnet20-relu)` stands where a network's name or an image source stands: in the
settings, in links, as cache key. Knows neither Streamlit nor torch.
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "upload:"
LABEL_MAX = 80
WORD_JOINER = "\u2060"  # of no width
READ_IN_PLAIN_TEXT = (  # where escapes do not help: what the browser makes addresses, symbols and arrows of
    r"(?<=:)(?=//|material/|[\w+-]+(?::|\\\[))",  # http:// :material/bolt: :smile: :red[x]
    r"(?<=(?<!\w):)(?=\w)|(?<=:)(?=(?:red|orange|yellow|green|blue|violet|gr[ae]y|rainbow|primary|small)\b)",
    r"(?i:(?<=www)(?=\.))",
    r"(?<=\w)(?=@\w)",
    r"(?<=-)(?=-|\\>)|(?<=<)(?=[-=])|(?<=>)(?==)",  # -- -> <- <= >=
)


def clean(text: str) -> str:
    """Return a label without what Markdown or the key would read as more than letters."""
    text = re.sub(r"[^\w .,()+=-]", "_", text).strip()
    return text if len(text) <= LABEL_MAX else f"{text[: LABEL_MAX // 2]}...{text[3 - LABEL_MAX // 2 :]}"


def plain(text: str) -> str:
    """Return Markdown that shows a text as it is: names and messages come from files and links."""
    text = re.sub(r"^[^\S\n]+", "", text, flags=re.MULTILINE)
    text = re.sub(r"([\\`*\[\]<>~$|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|&(?=#?\w+;))", r"\\\1", text)
    text = re.sub(r"^([#+=-]|\d+(?=[.)]))", _at_line_start, text, flags=re.MULTILINE)
    return re.sub("|".join(READ_IN_PLAIN_TEXT), WORD_JOINER, text)


def _at_line_start(found: re.Match[str]) -> str:
    """Return what would begin a heading, a list or a rule so that it does not."""
    return f"{WORD_JOINER}{found[0]}" if found[0].isdecimal() else f"\\{found[0]}"


def make(label: str, *content: bytes) -> str:
    """Return the key of an upload."""
    digest = hashlib.sha256()
    for part in content:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f"{PREFIX}{digest.hexdigest()[:16]}:{clean(label)}"


def is_upload(name: str) -> bool:
    """Tell whether a network's name or an image source stands for an upload."""
    return name.startswith(PREFIX)


def label(name: str) -> str:
    """Return what to show for a network's name or an image source; an upload's readable part."""
    return clean(name.split(":", 2)[-1]) if is_upload(name) else name
