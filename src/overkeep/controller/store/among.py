# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a column has one of any number of texts, which are one parameter: a thousand are slow to put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles


class _Texts(sa.types.TypeDecorator[Sequence[str]]):
    """Texts as one value: an array on PostgreSQL, JSON on SQLite."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """The type of the value."""
        of = postgresql.ARRAY(sa.Text) if dialect.name == "postgresql" else sa.Text()
        return dialect.type_descriptor(of)

    def process_bind_param(self, value: Sequence[str] | None, dialect: sa.Dialect) -> Any:
        """The value."""
        texts = list(value or ())
        return texts if dialect.name == "postgresql" else json.dumps(texts)


class _Among(sa.ColumnElement[bool]):
    inherit_cache = True
    type = sa.Boolean()
    _is_implicitly_boolean = True  # else it is compared with 1 on SQLite, which then uses no index for it
    _traverse_internals = [  # noqa: RUF012 - as the base class has it
        ("column", sa.sql.visitors.InternalTraversal.dp_clauseelement),
        ("texts", sa.sql.visitors.InternalTraversal.dp_clauseelement),
        ("met", sa.sql.visitors.InternalTraversal.dp_boolean),
    ]

    def __init__(self, column: sa.ColumnElement[str], texts: sa.BindParameter[Any], *, met: bool) -> None:
        self.column = column
        self.texts = texts
        self.met = met


def texts(values: Sequence[str]) -> sa.BindParameter[Any]:
    """The parameter, which may be used in several places of a statement."""
    return sa.bindparam(None, list(values), type_=_Texts(), unique=True)


def texts_named(name: str) -> sa.BindParameter[Any]:
    """The same without values, which are given by `name` when the statement is run."""
    return sa.bindparam(name, type_=_Texts())


def is_among(column: sa.ColumnElement[str], given: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """The condition; `given` is of `texts` or `texts_named`."""
    return _Among(column, given, met=False)


def has_among(column: sa.ColumnElement[str], given: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """As `is_among`, of the rows that one other row has: SQLite would ask an index for each of the texts, each time."""
    return _Among(column, given, met=True)


def unindexed(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """A column that is not NULL, as no index has it: rows are met in another way, and then looked at."""
    return sa.func.coalesce(column, sa.literal_column("''"))


@compiles(_Among)
def _sqlite(element: _Among, compiler: Any, **kw: Any) -> str:
    column, given = compiler.process(element.column, **kw), compiler.process(element.texts, **kw)
    sign = "+" if element.met else ""  # which keeps it from the index
    return f"{sign}{column} IN (SELECT value FROM json_each({given}))"  # noqa: S608 - of parts that are compiled


@compiles(_Among, "postgresql")
def _postgresql(element: _Among, compiler: Any, **kw: Any) -> str:
    return f"{compiler.process(element.column, **kw)} = ANY ({compiler.process(element.texts, **kw)})"
