"""Names in the syntax tree of a program: what it defines, and what it uses and does not define."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterable, Iterator

MAX_CHARS = 200_000  # of a program that is parsed
KNOWN = frozenset(dir(builtins)) | {"__name__", "__file__"}


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a model's program; None for a text that is no program."""
    try:
        return tree_of(source, "") if len(source) <= MAX_CHARS else None
    except ValueError:
        return None


def tree_of(source: str, name: str) -> ast.Module:
    """The syntax tree of a part of a reference. Raises ValueError that starts with the part's name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{name}: is no Python: {error}") from error


def names_in(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """Names that nodes read, and of these the free ones: not builtin, and bound by no node."""
    nodes = list(nodes)
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return loaded, loaded - {name for node in nodes for name in bound_names(node)} - KNOWN


def outside_of_definitions(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but those inside functions, classes and comprehensions, whose names are local."""
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)


def bound_names(node: ast.AST) -> list[str]:
    """The names that a node binds."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name.partition(".")[0] for alias in aliases]
    return []
