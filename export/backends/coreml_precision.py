"""Which ops of a half-precision Core ML package stay in single precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phoneward.export.backends.coreml_modules import module_of_op
from phoneward.export.recipe import AUTO
from phoneward.runtime.engines.mil.naming import short


@dataclass
class Keep:
    """Takes ops out of coremltools' pass to half precision, by their names or modules' paths.

    A name is that of an op or of its result before the pass, which hangs `_cast_fp16` on it; a
    path keeps every op of the module and of the modules in it. `kept` tells which ops it was.
    """

    names: Sequence[str]
    modules: Mapping[str, str]
    kept: dict[str, dict[str, None]] = field(default_factory=dict)

    def precision(self, ct: Any) -> Any:
        """Return coremltools' choice of half precision for all other ops."""
        self.names = [name for name in self.names if name != AUTO]
        if not self.names:
            return ct.precision.FLOAT16
        return ct.transform.FP16ComputePrecision(op_selector=lambda op: not self._keeps(op))

    def found(self) -> dict[str, tuple[str, ...]]:
        """The ops kept by each name; none for a name that nothing bears."""
        return {name: tuple(self.kept.get(name, ())) for name in self.names}

    def _keeps(self, op: Any) -> bool:
        if op.op_type == "const":
            return False
        known_as = {short(op.name), *(short(var.name) for var in op.outputs)}
        module = module_of_op(op, self.modules)
        for name in self.names:
            inside = module is not None and (module == name or module.startswith(f"{name}."))
            if short(name) in known_as or inside:
                self.kept.setdefault(name, {})[short(op.name)] = None
                return True
        return False
