"""Sparse storage of kernels that are not float."""

from __future__ import annotations

from collections.abc import Iterator

from bloodedge.deploy.lint.rule import WITH_XNNPACK, Case, Rule, Severity


def _look(case: Case) -> Iterator[str]:
    operators = case.file.operators if case.file else ()
    sparse = {t for operator in operators for t in operator.inputs if t.sparse}
    found = [tensor for tensor in sparse if tensor.type in ("INT8", "UINT8")]
    if found:
        yield f"{len(found)} int8 kernels are stored as sparse tensors"


RULE = Rule(
    "sparse-int8",
    "the converter's EXPERIMENTAL_SPARSITY with int8 or dynamic range writes files that XNNPACK "
    "refuses to prepare",
    "convert without EXPERIMENTAL_SPARSITY; gzip finds the zeros",
    Severity.USELESS,
    _look,
    WITH_XNNPACK,
)
