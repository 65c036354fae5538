"""Vector instructions for numba, where its compiler does not find them by itself.

They make up functions that `numba.extending.overload` puts in the place of plain ones, which say the same in NumPy
and serve where the compiler is switched off.
"""

from llvmlite import ir
from numba import types

_INT64 = ir.IntType(64)


class Vectors:
    """Emits instructions on vectors of `lanes` numbers into an LLVM `builder`."""

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        self.builder, self.lanes = builder, lanes

    def load(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        """Return the vector that begins `offset` items behind `pointer`, aligned or not."""
        return self.builder.load(self._vector_at(pointer, offset), align=1)

    def store(self, vector: ir.Value, pointer: ir.Value, offset: ir.Value) -> None:
        """Write a vector `offset` items behind `pointer`, aligned or not."""
        self.builder.store(vector, self._vector_at(pointer, offset), align=1)

    def broadcast(self, scalar: ir.Value) -> ir.Value:
        """Return a vector that holds `scalar` in every lane."""
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        return self.builder.shuffle_vector(first, undefined, self.constant(ir.IntType(32), 0))

    def constant(self, kind: ir.Type, value: float) -> ir.Constant:
        """Return a vector of type `kind` that holds the number `value` in every lane."""
        return ir.Constant(ir.VectorType(kind, self.lanes), [value] * self.lanes)

    def gather(self, pointer: ir.Value, indices: ir.Value) -> ir.Value:
        """Return the 4-byte items that lie `indices` (non-negative int32) behind `pointer`."""
        builder, item = self.builder, pointer.type.pointee
        offsets = builder.shl(builder.zext(indices, ir.VectorType(_INT64, self.lanes)), self.constant(_INT64, 2))
        addresses = builder.add(self.broadcast(builder.ptrtoint(pointer, _INT64)), offsets)
        pointers = builder.inttoptr(addresses, ir.VectorType(pointer.type, self.lanes))
        everywhere = self.constant(ir.IntType(1), 1)
        items = ir.VectorType(item, self.lanes)
        parameters = [pointers.type, ir.IntType(32), everywhere.type, items]
        name = f"llvm.masked.gather.v{self.lanes}i{item.width}.v{self.lanes}p0"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(items, parameters), name
        )
        return builder.call(function, [pointers, ir.IntType(32)(4), everywhere, ir.Constant(items, ir.Undefined)])

    def _vector_at(self, pointer: ir.Value, offset: ir.Value) -> ir.Value:
        vector = ir.VectorType(pointer.type.pointee, self.lanes)
        return self.builder.bitcast(self.builder.gep(pointer, [offset]), vector.as_pointer())


def unpacked(context, builder: ir.IRBuilder, signature, args) -> list[ir.Value]:
    """Return the arguments of an intrinsic: for arrays the address of the first item, for scalars the value."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]
