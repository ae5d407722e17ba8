"""The literature's conversion methods, one file a paper: `methods.get("cos")(rho=4).fit(network, T, images)`."""

from explorer.engine.methods.fitted import Fitted, Outcome
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method, option
from explorer.engine.methods.registry import all, get, parse, written

__all__ = ["Fitted", "Method", "Outcome", "Probe", "all", "get", "option", "parse", "written"]
