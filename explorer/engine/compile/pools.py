"""Max pools as they stand in the graph."""

from __future__ import annotations

from explorer.engine.compile.plan import Step
from explorer.engine.graph import Network


def pool_window(network: Network, step: Step) -> tuple[int, ...]:
    """Return a max pool's (height, width, stride y, x, padding y, x, dilation y, x)."""
    node = step.node
    names = ("kernel_size", "stride", "padding", "dilation")
    if node.op == "call_module":
        module = network.graph_module.get_submodule(str(node.target))
        values = {name: getattr(module, name) for name in names}
    else:
        values = dict(zip(names, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k in names}
    kernel = _two(values["kernel_size"])
    stride = _two(values.get("stride") or kernel)
    return (*kernel, *stride, *_two(values.get("padding", 0)), *_two(values.get("dilation", 1)))


def _two(value) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])
