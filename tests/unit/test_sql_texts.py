"""Every text that PostgreSQL is asked to parse is fixed, but for names that one function quotes.

Read off the code: whatever is interpolated into SQL is a constant of its module. The one module
that builds SQL for mapped tables (`participants.postgresql.statements`) interpolates what is listed
here, and whoever adds to that list has to say where it comes from.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.participants.postgresql.statements import quote_identifier, quote_table

PACKAGE = Path(__file__).parents[2] / "coordinator"
WITH_SQL = ("journal", "participants/postgresql", "mapping", "postgres_pool.py", "bootstrap")
BUILDER = "participants/postgresql/statements.py"
CALLS = {"execute", "fetch", "fetchrow", "fetchval", "executemany"}
CONSTANT = re.compile("_?[A-Z][A-Z0-9_]*")

WHOLE = {
    ("journal/migrate.py", "migration.sql"),
    ("participants/postgresql/bookkeeping.py", "script"),
    ("journal/foretold.py", "_statement(foretold)"),
}
"""Whole scripts of the package; and what the builder gave, with a call of our own around it."""
BUILT = re.compile(
    r"(table\.)?statements\.(read|preview|exist|delete|lock\(strength\)|(insert|update)\(columns\))"
    r"|sql"
)
"""What the builder gave; `sql` in row_changes is one of them."""

INTERPOLATED = {
    "quote_identifier(schema)", "quote_identifier(table)", "quote_identifier(table.key)",
    "quote_identifier(name)", "quote_identifier(self.table.key)",
    # Types, as format_type of the catalog writes them, quoted where need be.
    "self._types[name]", "self._types[table.key]",
    # Numbers, and words of ours.
    "at", "strength", "_parameters(1)", "_parameters(len(written))",
    "_parameters(1 + len(columns))", "_parameters(2 + len(columns))", "overriding",
    "RowLock.NO_KEY_UPDATE", "as_",
    # Made of the above.
    "self._quoted", "self._texts", "self._by_key", "self.read", "source", "names", "values",
    "assigned", "arrays", "seen", "came_true",
}  # fmt: skip


def modules() -> Iterator[tuple[str, ast.Module]]:
    for part in WITH_SQL:
        root = PACKAGE / part
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text())


def locals_of(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Give what each name is assigned to inside functions, anywhere in the module."""
    found: dict[str, list[ast.expr]] = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def is_fixed(text: ast.expr) -> bool:
    """Whether a text is made of constants only."""
    match text:
        case ast.Constant():
            return True
        case ast.Name():
            return CONSTANT.fullmatch(text.id) is not None
        case ast.JoinedStr():
            parts = [each.value for each in text.values if isinstance(each, ast.FormattedValue)]
            return all(map(is_fixed, parts))
        case ast.BinOp(op=ast.Add()):
            return is_fixed(text.left) and is_fixed(text.right)
    return False


def test_what_is_run_is_fixed_or_built_by_the_one_module_that_builds() -> None:
    wrong, seen = [], 0
    for module, tree in modules():
        assigned = locals_of(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in CALLS or not node.args:
                continue
            text = node.args[0]
            seen += 1
            source = ast.unparse(text)
            if is_fixed(text) or (module, source) in WHOLE:
                continue
            if source in assigned and all(map(is_fixed, assigned[source])):
                continue  # one of several constants
            if module.startswith("participants/postgresql/") and BUILT.fullmatch(source):
                continue
            if module == "journal/outbox.py" and "{statement}" in source:
                continue  # judged below
            wrong.append(f"{module}:{node.lineno}: {source[:80]}")
    assert wrong == []
    assert seen > 60


def test_the_relays_changes_are_fixed() -> None:
    tree = dict(modules())["journal/outbox.py"]
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._change"
    ]
    assert len(calls) > 2
    assert all(is_fixed(call.args[0]) for call in calls)


def test_constants_with_sql_are_made_of_constants() -> None:
    wrong = []
    for module, tree in modules():
        if module == BUILDER:
            continue
        for node in tree.body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.JoinedStr):
                continue
            for each in node.value.values:
                if isinstance(each, ast.FormattedValue) and not is_fixed(each.value):
                    wrong.append(f"{module}: {ast.unparse(each.value)}")
    assert wrong == []


def test_the_builder_interpolates_quoted_names_and_nothing_of_a_senders() -> None:
    tree = dict(modules())[BUILDER]
    found = {
        ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)
    }
    assert found <= INTERPOLATED
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Mod)], "no % formatting"


def test_nobody_else_quotes_a_name() -> None:
    """A second place that doubles quotes would be a second place to get it wrong."""
    places = [
        module
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node).endswith("""replace('"', '""')""")
    ]
    assert places == [BUILDER]


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_a_quoted_name_is_one_name_whatever_is_in_it(name: str) -> None:
    quoted = quote_identifier(name)
    assert re.fullmatch('"(?:[^"]|"")+"', quoted)
    assert quoted[1:-1].replace('""', '"') == name
    assert quote_table(name, name) == f"{quoted}.{quoted}"
