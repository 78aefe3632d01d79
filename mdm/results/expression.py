"""The small language of claims: `fd_judge["base"] < fd_judge["no-progressive"]`.

Parsed with `ast` against a whitelist and interpreted here; nothing is ever handed to Python's `eval`.
Grammar: numbers, + - * /, the comparisons < <= > >=, and / or / not, and METRIC["run"] or
METRIC["run", "protocol"]. Values carry their derivatives by each measurement, so that intervals follow.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mdm.results.quantity import Quantity, propagated

MAX_CHARACTERS = 1000
ALLOWED = 'numbers, + - * /, < <= > >=, and, or, not, METRIC["run"], METRIC["run", "protocol"]'
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
RELATIONS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}
NUMBER, TRUTH = "a number", "true or false"


class ExpressionError(ValueError):
    """A claim's expression is wrong; the message says what and what to write instead."""


@dataclass(frozen=True)
class Reference:
    """One measurement an expression needs; no protocol means the claim's own."""

    metric: str
    run: str
    protocol: str | None = None

    def __str__(self) -> str:
        return f'{self.metric}["{self.run}"' + (f', "{self.protocol}"]' if self.protocol else "]")


@dataclass(frozen=True)
class Form:
    """A value and its derivative by each measurement."""

    value: float
    slopes: dict[Reference, float] = field(default_factory=dict)

    def combine(self, other: Form, value: float, mine: float, theirs: float) -> Form:
        keys = self.slopes.keys() | other.slopes.keys()
        slopes = {
            k: mine * self.slopes.get(k, 0.0) + theirs * other.slopes.get(k, 0.0)
            for k in sorted(keys, key=str)
        }
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


def parse(text: str) -> ast.expr:
    """The expression's tree, proven to hold nothing but the grammar above."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(
            f"the expression has {len(text)} characters; at most {MAX_CHARACTERS} are allowed"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        kind = _kind(tree, text)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"cannot read {_short(text)}: {error}; allowed: {ALLOWED}") from None
    if kind != TRUTH:
        raise ExpressionError(f'{text!r} is a number; a claim must compare, e.g. fd["base"] < fd["other"]')
    return tree


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _kind(node: ast.AST, text: str) -> str:
    """Whether a node is a number or a truth value; anything outside the grammar is refused."""
    match node:
        case ast.BoolOp(values=values):
            return _all(values, TRUTH, text, TRUTH)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _all([operand], TRUTH, text, TRUTH)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _all([operand], NUMBER, text, NUMBER)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), left=left, right=right):
            return _all([left, right], NUMBER, text, NUMBER)
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in COMPARISONS for op in ops):
            return _all([left, *rest], NUMBER, text, TRUTH)
        case ast.Constant(value=int() | float() as value) if type(value) is not bool and math.isfinite(value):
            return NUMBER
        case ast.Subscript() if _reference(node) is not None:
            return NUMBER
    part = ast.get_source_segment(text.strip(), node) or text
    raise ExpressionError(f"{part!r} is not allowed in a claim; allowed: {ALLOWED}")


def _all(nodes: Iterable[ast.AST], wanted: str, text: str, result: str) -> str:
    for node in nodes:
        if _kind(node, text) != wanted:
            part = ast.get_source_segment(text.strip(), node)
            raise ExpressionError(f"in {text!r}, {part!r} must be {wanted}")
    return result


def _reference(node: ast.Subscript) -> Reference | None:
    match node:
        case ast.Subscript(value=ast.Name(id=metric), slice=ast.Constant(value=str() as run)):
            return Reference(metric, run)
        case ast.Subscript(
            value=ast.Name(id=metric),
            slice=ast.Tuple(elts=[ast.Constant(value=str() as run), ast.Constant(value=str() as protocol)]),
        ):
            return Reference(metric, run, protocol)
    return None


def references(tree: ast.expr) -> list[Reference]:
    """Every measurement the expression needs, in the order written, once each."""
    found = (_reference(node) for node in _walk(tree) if isinstance(node, ast.Subscript))
    return list(dict.fromkeys(r for r in found if r))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def check_expression(
    text: str,
    metrics: Iterable[str] | None,
    runs: Iterable[str] | None,
    protocols: Iterable[str] | None = None,
) -> list[Reference]:
    """Refuse what is malformed or names an unknown metric, run or protocol (None: not checked)."""
    needed = references(parse(text))
    if not needed:
        raise ExpressionError(f'{text!r} measures nothing; compare at least one METRIC["run"]')
    for reference in needed:
        _known("metric", reference.metric, metrics, text)
        _known("run", reference.run, runs, text)
        if reference.protocol is not None:
            _known("protocol", reference.protocol, protocols, text)
    return needed


def _known(what: str, name: str, valid: Iterable[str] | None, text: str) -> None:
    if valid is None:
        return
    valid = sorted(set(valid))
    if name not in valid:
        close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ExpressionError(
            f"unknown {what} {name!r} in {text!r}; {hint}(valid: {', '.join(valid) or 'none'})"
        )


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
            reference = _reference(node)
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
