"""Scripts and style sheets of the components lie beside them, as files an editor understands."""

from pathlib import Path


def source(name: str) -> str:
    """Return the text of a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
