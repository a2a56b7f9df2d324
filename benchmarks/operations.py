"""Counts what a training step runs, as a graph and as compiled by XLA."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any


@dataclasses.dataclass(frozen=True)
class Counts:
    """Operations of one training step.

    Args:
        convolutions: forward, and both transposes.
        matmuls: the same.
    """

    convolutions: int
    matmuls: int


def count_graph(step: Any, *arguments: Any) -> Counts:
    """Counts in the graph that runs on the device, after Grappler has pruned and fused it.

    Args:
        step: a `tf.function` without XLA. It is called once.
        arguments: of the step.

    Returns:
        The counts.
    """
    from tensorflow.python.eager import context  # no public name gives the optimized graph

    step.get_concrete_function(*arguments)  # so that the call below records nothing but itself
    eager = context.context()
    eager.enable_graph_collection()
    try:
        eager.export_run_metadata()  # takes away what another collection has left
        step(*arguments)
        collected = eager.export_run_metadata()
    finally:
        eager.disable_graph_collection()
    kinds: collections.Counter[str] = collections.Counter()
    for function in collected.function_graphs:
        graph = function.post_optimization_graph
        kinds.update(node.op for node in graph.node)
        for inner in graph.library.function:
            kinds.update(node.op for node in inner.node_def)
    return Counts(
        convolutions=sum(n for kind, n in kinds.items() if "Conv" in kind),
        matmuls=sum(n for kind, n in kinds.items() if "MatMul" in kind),
    )


_HLO = re.compile(r" (convolution|dot)\(")
# XLA may hand an operation to a library instead.
_HLO_LIBRARY = re.compile(r'custom_call_target="[^"]*(conv|matmul|gemm)[^"]*"', re.IGNORECASE)


def count_xla(step: Any, *arguments: Any) -> Counts:
    """Counts in the HLO that XLA compiles to machine code, after its own passes.

    Args:
        step: a `tf.function` with `jit_compile=True`. It is not called.
        arguments: of the step.

    Returns:
        The counts.
    """
    return _in_hlo(step.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo"))


def count_jax(step: Any, *arguments: Any) -> Counts:
    """Counts in the HLO that XLA compiles of a JAX function.

    Args:
        step: a function of arrays. It is not called.
        arguments: of the step.

    Returns:
        The counts.
    """
    import jax

    return _in_hlo(jax.jit(step).lower(*arguments).compile().as_text())


_TYPED = re.compile(r"= (\w+)\[[^=]*? (convolution|dot)\(")


def types_xla(step: Any, *arguments: Any) -> collections.Counter[tuple[str, str]]:
    """Counts by what is multiplied, in the HLO as it is handed to XLA.

    On a CPU XLA's own passes turn bfloat16 into float32.

    Args:
        step: a `tf.function` with `jit_compile=True`. It is not called.
        arguments: of the step.

    Returns:
        How often each of ("convolution" or "dot", type of the result) is there.
    """
    return _types(step.experimental_get_compiler_ir(*arguments)(stage="hlo"))


def types_jax(step: Any, *arguments: Any) -> collections.Counter[tuple[str, str]]:
    """The same of a JAX function.

    Args:
        step: a function of arrays. It is not called.
        arguments: of the step.

    Returns:
        As `types_xla`.
    """
    import jax

    lowered = jax.jit(step).lower(*arguments)
    return _types(lowered.compiler_ir(dialect="hlo").as_hlo_text())


def _types(hlo: str) -> collections.Counter[tuple[str, str]]:
    return collections.Counter((kind, dtype) for dtype, kind in _TYPED.findall(hlo))


def _in_hlo(hlo: str) -> Counts:
    found = collections.Counter(_HLO.findall(hlo))
    library = collections.Counter(name.lower() for name in _HLO_LIBRARY.findall(hlo))
    return Counts(
        convolutions=found["convolution"] + library["conv"],
        matmuls=found["dot"] + library["matmul"] + library["gemm"],
    )
