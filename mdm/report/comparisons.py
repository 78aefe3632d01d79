"""The truth of a claim's expression (mdm/study/claims.py); values carry derivatives, from which intervals follow."""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from mdm.report.quantity import Measurement, Quantity, Term, combined, logarithm, over_seeds
from mdm.report.reaches import over_pairs
from mdm.study.claims import COMPARISONS, Reference, parse, reference_of, references

RELATIONS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}


@dataclass(frozen=True)
class Form:
    """A value and its derivative by each measurement."""

    value: float
    slopes: dict[Reference, float] = field(default_factory=dict)

    def combine(self, other: Self, value: float, mine: float, theirs: float) -> Self:
        keys = self.slopes.keys() | other.slopes.keys()
        slopes = {k: mine * self.slopes.get(k, 0.0) + theirs * other.slopes.get(k, 0.0) for k in sorted(keys, key=str)}
        return replace(self, value=value, slopes=slopes)


@dataclass(frozen=True)
class Comparison:
    """One comparison: decided or not by its interval; `margin` is positive where the comparison holds."""

    left_text: str
    sign: str
    right_text: str
    left: Quantity
    right: Quantity
    margin: Quantity
    holds: bool | None
    #: every measurement that the comparison depends on
    behind: tuple[Reference, ...] = ()
    #: whether a number other than zero, which nothing here measured, stands against a measurement
    with_number: bool = False

    @property
    def text(self) -> str:
        return f"{self.left_text} {self.sign} {self.right_text}"

    @property
    def of_logarithms(self) -> bool:
        """Whether logarithms or their differences are compared, so that the margin is that of a ratio."""
        return bool(ratio(self.left_text) and ratio(self.right_text))

    @property
    def relation(self) -> str:
        return RELATIONS[self.sign]


def ratio(text: str) -> str | None:
    """What a side is the logarithm of: `a` of log(a), `a / b` of log(a) - log(b); None of anything else."""
    found = re.fullmatch(r"log\(([^()]*)\)(?: - log\(([^()]*)\))?", text)
    return found and " / ".join(filter(None, found.groups()))


# What is behind a measurement: each training's number, by seed.
Parts = Mapping[int, Measurement]


def decide(
    text: str, parts_of: Callable[[Reference], Parts]
) -> tuple[bool | None, float, list[Comparison], dict[Reference, Quantity]]:
    """Three-valued truth of the expression, its p-value, each comparison behind it, and the numbers it used.

    The p-value is that of the answer found: how easily chance alone would have given so clear a one.
    """
    tree = parse(text)
    parts = {reference: _as_meant(reference, parts_of(reference)) for reference in references(tree)}
    comparisons: list[Comparison] = []
    truth, chance = _truth(tree, parts, comparisons)
    return truth, chance, comparisons, {r.plain: _shown(r, parts_of(r)) for r in parts}


def _shown(reference: Reference, parts: Parts) -> Quantity:
    """A number as the report shows it; of ratios of costs the geometric mean."""
    return (reference.best_of and over_pairs(parts)) or over_seeds(parts)


def _as_meant(reference: Reference, parts: Parts) -> Parts:
    return {seed: logarithm(part) for seed, part in parts.items()} if reference.log else parts


def _truth(node: ast.AST, parts: Mapping[Reference, Parts], out: list[Comparison]) -> tuple[bool | None, float]:
    """Kleene's logic: undecided parts leave a whole undecided only where they matter."""
    match node:
        case ast.UnaryOp(operand=operand):
            inner, chance = _truth(operand, parts, out)
            return (None if inner is None else not inner), chance
        case ast.BoolOp(op=op, values=values):
            found = [_truth(value, parts, out) for value in values]
            return _joined(found, decisive=not isinstance(op, ast.And))
        case ast.Compare(left=left, ops=ops, comparators=rest):
            sides = [left, *rest]
            made = [_compare(a, op, b, parts) for a, op, b in zip(sides, ops, rest, strict=False)]
            out.extend(made)
            return _joined([(c.holds, c.margin.chance) for c in made], decisive=False)
    raise TypeError(f"not a truth value: {ast.dump(node)}")


def _joined(parts: list[tuple[bool | None, float]], decisive: bool) -> tuple[bool | None, float]:
    """A conjunction (`decisive` False: one such part settles it) or a disjunction, with its p-value.

    What needs all parts is as uncertain as the least certain; what needs one of several had as many chances.
    """
    settling = [chance for truth, chance in parts if truth is decisive]
    if settling:
        return decisive, min(1.0, len(parts) * min(settling))
    truths = [truth for truth, _ in parts]
    return (None if None in truths else not decisive), max(chance for _, chance in parts)


def _compare(left: ast.AST, op: ast.cmpop, right: ast.AST, parts: Mapping[Reference, Parts]) -> Comparison:
    means = {reference: over_seeds(found).value for reference, found in parts.items()}
    a, b = _form(left, means), _form(right, means)
    small, big = (a, b) if isinstance(op, ast.Lt | ast.LtE) else (b, a)
    form = big.combine(small, big.value - small.value, 1.0, -1.0)
    margin = _quantity(form, parts)
    strict = isinstance(op, ast.Lt | ast.Gt)
    holds: bool | None = None
    if margin.low > 0 or (not strict and margin.low == 0):
        holds = True
    elif margin.high < 0 or (strict and margin.high == 0):
        holds = False
    behind = tuple(reference for reference, slope in form.slopes.items() if slope)
    texts, sides = (_source(left), COMPARISONS[type(op)], _source(right)), (_quantity(f, parts) for f in (a, b))
    # 1 is no paper's number where costs are compared: it says as soon.
    neutral = (0, 1) if behind and all(reference.best_of for reference in behind) else (0,)
    with_number = any(_adds_number(side, neutral) for side in (left, right))
    return Comparison(*texts, *sides, margin, holds, behind, with_number)


def _adds_number(node: ast.AST, neutral: tuple[int, ...] = (0,)) -> bool:
    """Whether a number other than the neutral ones is a term of the node; factors of measurements are none."""
    match node:
        case ast.Constant(value=value):
            return value not in neutral
        case ast.UnaryOp(operand=operand):
            return _adds_number(operand, neutral)
        case ast.BinOp(op=ast.Mult() | ast.Div(), left=left, right=right):
            measured = [side for side in (left, right) if any(isinstance(n, ast.Subscript) for n in ast.walk(side))]
            return any(_adds_number(side, neutral) for side in measured or (left, right))
        case ast.BinOp(left=left, right=right):
            return _adds_number(left, neutral) or _adds_number(right, neutral)
    return False


def _quantity(form: Form, parts: Mapping[Reference, Parts]) -> Quantity:
    """A side or a margin with its interval; a single measurement is shown as everywhere else."""
    if list(form.slopes.values()) == [1.0] and form.value == over_seeds(parts[next(iter(form.slopes))]).value:
        return over_seeds(parts[next(iter(form.slopes))])
    return combined(form.value, [Term(slope, parts[reference]) for reference, slope in form.slopes.items()])


def _source(node: ast.AST) -> str:
    return ast.unparse(node).replace("'", '"').replace('[("', '["').replace('")]', '"]')


def _form(node: ast.AST, means: Mapping[Reference, float]) -> Form:
    """Forward-mode derivatives of the arithmetic."""
    match node:
        case ast.Constant(value=value):
            return Form(float(value))
        case ast.Subscript() | ast.Call():
            reference = reference_of(node)
            return Form(means[reference], {reference: 1.0})
        case ast.UnaryOp(op=op, operand=operand):
            form, sign = _form(operand, means), -1.0 if isinstance(op, ast.USub) else 1.0
            return Form(sign * form.value, {k: sign * s for k, s in form.slopes.items()})
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _form(left, means), _form(right, means))
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
