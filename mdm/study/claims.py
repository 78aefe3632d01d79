"""The small language of claims: `fd_judge["base"] < fd_judge["no-progressive"]`.

Parsed with `ast` against a whitelist; nothing is ever handed to Python's `eval`. The grammar: numbers, + - * /, the
comparisons < <= > >=, and / or / not, METRIC["run"] or METRIC["run", "protocol"], reaches(METRIC["a"], METRIC["b"])
(after how much of its training a run is as good as the other at its best), and log of such a measurement.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import attrgetter

from mdm.evaluate.metric_names import EMM

MAX_CHARACTERS = 1000
ALLOWED = 'numbers, + - * /, < <= > >=, and, or, not, METRIC["run"], METRIC["run", "protocol"], log(METRIC["run"]), '
ALLOWED += 'reaches(METRIC["run"], METRIC["other"]), reaches(METRIC["run"], METRIC["other"], "gigaflops")'
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
# What is above zero whatever was drawn; the distances without their bias may fall below it.
POSITIVE = ("fd_judge", "fid", "fd_dino", "fvd", "inception_score", "detail", "validation_loss", "excess_loss", "emm",
            "copied_onset", "quality_onset", "train_seconds", "sample_seconds")  # fmt: skip
COSTS = ("images", "gigaflops", "seconds")  # of training, all stages up to a point added up
NUMBER, TRUTH = "a number", "true or false"
Names = Iterable[str] | None  # None: not checked


class ExpressionError(ValueError):
    """A claim's expression is wrong; the message says what and what to write instead."""


@dataclass(frozen=True)
class Reference:
    """One measurement an expression needs; no protocol means the claim's own."""

    metric: str
    run: str
    protocol: str | None = None
    #: its natural logarithm is meant, so that a difference is a ratio
    log: bool = False
    #: of `reaches`: the run whose best value is to be reached, and the cost of training that is counted
    best_of: str | None = None
    cost: str | None = None

    @property
    def plain(self) -> Reference:
        """The measurement itself."""
        return replace(self, log=False)

    def __str__(self) -> str:
        text = f'{self.metric}["{self.run}"' + (f', "{self.protocol}"]' if self.protocol else "]")
        if self.best_of:
            text = f'reaches({text}, {self.metric}["{self.best_of}"], "{self.cost}")'
        return f"log({text})" if self.log else text


def parse(text: str) -> ast.expr:
    """Return the expression's tree, which holds nothing but the grammar above."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {MAX_CHARACTERS} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        kind = _kind(tree, text)
    except (SyntaxError, RecursionError, MemoryError) as error:
        shown = repr(text if len(text) <= 80 else text[:77] + "...")
        raise ExpressionError(f"cannot read {shown}: {error}; allowed: {ALLOWED}") from None
    if kind != TRUTH:
        raise ExpressionError(f'{text!r} is a number; a claim must compare, e.g. fd["base"] < fd["other"]')
    return tree


def _kind(node: ast.AST, text: str) -> str:
    """Return whether a node is a number or a truth value; anything outside the grammar is refused."""
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
        case ast.Subscript() | ast.Call() if reference_of(node) is not None:
            return NUMBER
    part = ast.get_source_segment(text.strip(), node) or text
    if "reaches(" in part:
        raise ExpressionError(
            f"{part!r}: reaches takes one metric of two runs, under the protocol of `along`, and perhaps what to count "
            f'({", ".join(COSTS)}); write reaches(fd_judge["base"], fd_judge["other"], "images")'
        )
    raise ExpressionError(f"{part!r} is not allowed in a claim; allowed: {ALLOWED}")


def _all(nodes: Iterable[ast.AST], wanted: str, text: str, result: str) -> str:
    for node in nodes:
        if _kind(node, text) != wanted:
            part = ast.get_source_segment(text.strip(), node)
            raise ExpressionError(f"in {text!r}, {part!r} must be {wanted}")
    return result


def reference_of(node: ast.AST) -> Reference | None:
    match node:
        case ast.Call(
            func=ast.Name(id="reaches"), args=[ast.Subscript() as own, ast.Subscript() as to, *cost], keywords=[]
        ):
            return _reach(reference_of(own), reference_of(to), cost)
        case ast.Call(func=ast.Name(id="log"), args=[ast.Subscript() | ast.Call() as inner], keywords=[]):
            found = reference_of(inner)
            return replace(found, log=True) if found and not found.log else None
        case ast.Subscript(value=ast.Name(id=metric), slice=ast.Constant(value=str() as run)):
            return Reference(metric, run)
        case ast.Subscript(
            value=ast.Name(id=metric),
            slice=ast.Tuple(elts=[ast.Constant(value=str() as run), ast.Constant(value=str() as protocol)]),
        ):
            return Reference(metric, run, protocol)
    return None


def _reach(own: Reference | None, other: Reference | None, cost: list[ast.expr]) -> Reference | None:
    """After how much of its training, over what the other had spent at its best, a run is as good as that."""
    match cost:
        case []:
            word = COSTS[0]
        case [ast.Constant(value=str() as word)] if word in COSTS:
            pass
        case _:
            return None
    if own is None or other is None or own.metric != other.metric or own.protocol or other.protocol:
        return None
    return replace(own, best_of=other.run, cost=word)


def references(tree: ast.expr) -> list[Reference]:
    """Return every measurement the expression needs, in the order written, once each."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript | ast.Call)]
    inside = {id(part) for node in nodes if isinstance(node, ast.Call) for part in ast.walk(node) if part is not node}
    found = [node for node in nodes if id(node) not in inside]
    return list(dict.fromkeys(filter(None, map(reference_of, sorted(found, key=attrgetter("lineno", "col_offset"))))))


def check_expression(
    text: str, metrics: Names, runs: Names, protocols: Names = None, curves: Names = None
) -> list[Reference]:
    """Refuse what is malformed or names an unknown metric, run or protocol (None: not checked).

    `curves`: what emm["NAME"] may name, a curve over several runs.
    """
    needed = references(parse(text))
    if not needed:
        raise ExpressionError(f'{text!r} measures nothing; compare at least one METRIC["run"]')
    for reference in needed:
        _known("metric", reference.metric, metrics, text)
        what, valid = ("curve of emm", curves) if reference.metric == EMM else ("run", runs)
        _known(what, reference.run, valid, text)
        if reference.best_of:
            _known("run", reference.best_of, runs, text)
            continue  # a ratio of costs, which has a logarithm
        if reference.protocol is not None:
            _known("protocol", reference.protocol, protocols, text)
        if reference.log and (not reference.metric.startswith(POSITIVE) or "_unbiased" in reference.metric):
            raise ExpressionError(
                f"{reference} in {text!r}: {reference.metric} may be zero or less, and has no logarithm then; compare "
                f"it as it is (log is for {', '.join(POSITIVE)})"
            )
    return needed


def _known(what: str, name: str, valid: Names, text: str) -> None:
    if valid is None:
        return
    valid = sorted(set(valid))
    if name not in valid:
        close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ExpressionError(f"unknown {what} {name!r} in {text!r}; {hint}(valid: {', '.join(valid) or 'none'})")
