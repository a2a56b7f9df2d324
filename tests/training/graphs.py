"""The graph that TensorFlow runs: does something order every read against every update?"""

import collections
from collections.abc import Callable
from typing import Any

from tensorflow.python.eager import context

READS = ("ReadVariableOp",)
UPDATES = ("Assign", "ResourceApply", "ResourceScatter")


def optimized_graphs(function: Callable, *args: Any) -> list[Any]:
    """The graphs that one call of a `tf.function` executes."""
    context.enable_run_metadata()
    try:
        function(*args)
        metadata = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return [graph.post_optimization_graph for graph in metadata.function_graphs]


def _inputs(node: Any) -> list[str]:
    return [name.lstrip("^").partition(":")[0] for name in node.input]


def _ancestors(nodes: dict[str, Any]) -> Callable[[str], set[str]]:
    found: dict[str, set[str]] = {}

    def of(name: str) -> set[str]:
        if name not in found:
            seen, waiting = set(), [name]
            while waiting:
                for source in _inputs(nodes[waiting.pop()]):
                    if source in nodes and source not in seen:
                        seen.add(source)
                        waiting.append(source)
            found[name] = seen
        return found[name]

    return of


def _resource(nodes: dict[str, Any], name: str) -> str:
    """Where a handle comes from, through what passes it on."""
    while name in nodes and nodes[name].op in ("Identity", "Enter", "Switch"):
        name = _inputs(nodes[name])[0]
    return name


def unordered(graphs: list[Any]) -> tuple[int, list[str]]:
    """Reads and updates of one variable that nothing puts in an order.

    Args:
        graphs: of `optimized_graphs`.

    Returns:
        How many variables are both read and updated; each pair without an order.
    """
    updated, pairs = 0, []
    for graph in graphs:
        nodes = {node.name: node for node in graph.node}
        ancestors = _ancestors(nodes)
        reads, updates = collections.defaultdict(list), collections.defaultdict(list)
        for node in graph.node:
            if node.op in READS:
                reads[_resource(nodes, _inputs(node)[0])].append(node.name)
            elif node.op.startswith(UPDATES):
                updates[_resource(nodes, _inputs(node)[0])].append(node.name)
        for resource in set(reads) & set(updates):
            updated += 1
            others = reads[resource] + updates[resource]
            for update in updates[resource]:
                for other in others:
                    if other != update and not (
                        other in ancestors(update) or update in ancestors(other)
                    ):
                        pairs.append(f"{resource}: {other} and {update}")
    return updated, pairs
