"""The truth of a claim's expression, with the interval of every comparison in it.

Values carry their derivatives by each measurement, so that intervals follow. The language itself is in
`mdm/study/claims.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mdm.report.quantity import Quantity, propagated
from mdm.study.claims import COMPARISONS, Reference, parse, reference_of, references

RELATIONS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}


@dataclass(frozen=True)
class Form:
    """A value and its derivative by each measurement."""

    value: float
    slopes: dict[Reference, float] = field(default_factory=dict)

    def combine(self, other: Form, value: float, mine: float, theirs: float) -> Form:
        keys = self.slopes.keys() | other.slopes.keys()
        slopes = {k: mine * self.slopes.get(k, 0.0) + theirs * other.slopes.get(k, 0.0) for k in sorted(keys, key=str)}
        return Form(value, slopes)


@dataclass(frozen=True)
class Comparison:
    """One decided (or undecided) comparison; `margin` is positive where the comparison holds."""

    left_text: str
    sign: str
    right_text: str
    left: Quantity
    right: Quantity
    margin: Quantity
    holds: bool | None
    paired: bool = False

    @property
    def text(self) -> str:
        return f"{self.left_text} {self.sign} {self.right_text}"

    @property
    def relation(self) -> str:
        return RELATIONS[self.sign]


# The paired difference of two measurements, None where there is none.
Pairing = Callable[[Reference, Reference], Quantity | None]


def decide(
    text: str, quantity_of: Callable[[Reference], Quantity], pairing: Pairing = lambda own, other: None
) -> tuple[bool | None, list[Comparison], dict[Reference, Quantity]]:
    """Three-valued truth of the expression, each comparison behind it, and the numbers it used."""
    tree = parse(text)
    quantities = {reference: quantity_of(reference) for reference in references(tree)}
    comparisons: list[Comparison] = []
    return _truth(tree, quantities, pairing, comparisons), comparisons, quantities


def _truth(
    node: ast.AST, quantities: Mapping[Reference, Quantity], pairing: Pairing, out: list[Comparison]
) -> bool | None:
    """Kleene's logic: undecided parts leave a whole undecided only where they matter."""
    match node:
        case ast.UnaryOp(operand=operand):
            inner = _truth(operand, quantities, pairing, out)
            return None if inner is None else not inner
        case ast.BoolOp(op=op, values=values):
            parts = [_truth(value, quantities, pairing, out) for value in values]
            return conjunction(parts) if isinstance(op, ast.And) else disjunction(parts)
        case ast.Compare(left=left, ops=ops, comparators=rest):
            sides = [left, *rest]
            made = [_compare(a, op, b, quantities, pairing) for a, op, b in zip(sides, ops, rest, strict=False)]
            out.extend(made)
            return conjunction([c.holds for c in made])
    raise TypeError(f"not a truth value: {ast.dump(node)}")


def conjunction(parts: list[bool | None]) -> bool | None:
    """True if all are, False if any is, otherwise undecided."""
    return False if False in parts else None if None in parts else True


def disjunction(parts: list[bool | None]) -> bool | None:
    """True if any is, False if none can be, otherwise undecided."""
    return True if True in parts else None if None in parts else False


def _compare(
    left: ast.AST, op: ast.cmpop, right: ast.AST, quantities: Mapping[Reference, Quantity], pairing: Pairing
) -> Comparison:
    a, b = _form(left, quantities), _form(right, quantities)
    small, big = (a, b) if isinstance(op, ast.Lt | ast.LtE) else (b, a)
    form = big.combine(small, big.value - small.value, 1.0, -1.0)
    pair = _paired(form, quantities, pairing)
    margin = pair or propagated(form.value, form.slopes, quantities)
    strict = isinstance(op, ast.Lt | ast.Gt)
    holds: bool | None = None
    if margin.low > 0 or (not strict and margin.low == 0):
        holds = True
    elif margin.high < 0 or (strict and margin.high == 0):
        holds = False
    sides = (propagated(f.value, f.slopes, quantities) for f in (a, b))
    return Comparison(_source(left), COMPARISONS[type(op)], _source(right), *sides, margin, holds, pair is not None)


def _paired(form: Form, quantities: Mapping[Reference, Quantity], pairing: Pairing) -> Quantity | None:
    """The interval of one measurement minus another (and a number), if their pictures can be paired."""
    sides = {slope: reference for reference, slope in form.slopes.items() if slope}
    if set(sides) != {1.0, -1.0} or sum(map(bool, form.slopes.values())) != 2:
        return None
    found = pairing(sides[1.0], sides[-1.0])
    if found is None:
        return None
    shift = form.value - (quantities[sides[1.0]].value - quantities[sides[-1.0]].value)
    return Quantity(form.value, found.low + shift, found.high + shift, found.seeds)


def _source(node: ast.AST) -> str:
    return ast.unparse(node).replace("'", '"').replace('[("', '["').replace('")]', '"]')


def _form(node: ast.AST, quantities: Mapping[Reference, Quantity]) -> Form:
    """Forward-mode derivatives of the arithmetic."""
    match node:
        case ast.Constant(value=value):
            return Form(float(value))
        case ast.Subscript():
            reference = reference_of(node)
            return Form(quantities[reference].value, {reference: 1.0})
        case ast.UnaryOp(op=op, operand=operand):
            form, sign = _form(operand, quantities), -1.0 if isinstance(op, ast.USub) else 1.0
            return Form(sign * form.value, {k: sign * s for k, s in form.slopes.items()})
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _form(left, quantities), _form(right, quantities))
    raise TypeError(f"not a number: {ast.dump(node)}")


def _arithmetic(op: ast.operator, a: Form, b: Form) -> Form:
    match op:
        case ast.Add():
            return a.combine(b, a.value + b.value, 1.0, 1.0)
        case ast.Sub():
            return a.combine(b, a.value - b.value, 1.0, -1.0)
        case ast.Mult():
            return a.combine(b, a.value * b.value, b.value, a.value)
    return a.combine(b, a.value / b.value, 1 / b.value, -a.value / b.value**2)
