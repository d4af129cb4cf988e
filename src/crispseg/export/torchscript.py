"""TorchScript of traced graphs, for programs that do not run ONNX or torch.export."""

from __future__ import annotations

from pathlib import Path

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

from crispseg.errors import CrispsegError
from crispseg.export.certificate import compare
from crispseg.export.plan import ExportPlan, exporting
from crispseg.inference.runtime import ExportedModel

OF_INTEGERS = {torch.sym_max: max, torch.sym_min: min}  # sizes are integers in TorchScript


def write_torchscript(plan: ExportPlan, program: ExportedProgram, path: Path) -> None:
    """Write the traced graph of a plan, for all sizes of the plan, and compare the file with the model.

    Raises:
        CrispsegError: the file has other results. TorchScript's compiler raises errors of any kind.
    """
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        if isinstance(node.target, OpOverload):
            node.target = node.target.overloadpacket  # TorchScript finds the overload by the arguments
        node.target = OF_INTEGERS.get(node.target, node.target)
        if node.op == "output":
            node.args = node.args[0]  # the tensor instead of a tuple of it
    module.graph.set_codegen(CodeGen())  # plain arguments
    with exporting():
        torch.jit.script(GraphModule(module, module.graph)).save(path)  # type: ignore[no-untyped-call]
        file = ExportedModel(torch.jit.load(path), plan.metadata(), path)  # type: ignore[no-untyped-call]
    for size in plan.compared_sizes:
        comparison = compare(file, plan.model, size)
        if not comparison.agrees:
            raise CrispsegError(f"other results: {comparison}")
