"""The literature's conversion methods, one file a paper: `methods.get("cos")(rho=4).fit(network, T, images)`.

Loaded when first asked for: names, and how a method is written in a line, need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explorer.engine.methods.fitted import Fitted, Outcome, edited
    from explorer.engine.methods.fitting import Probe
    from explorer.engine.methods.method import Method, option
    from explorer.engine.methods.registry import all, get, parse, written

_NAMES = {
    "fitted": "Fitted Outcome edited",
    "fitting": "Probe",
    "method": "Method option",
    "registry": "all get parse written",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


__all__ = ["Fitted", "Method", "Outcome", "Probe", "all", "edited", "get", "option", "parse", "written"]
