# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that an engine only stores for its clients: made from what a request says, shown, changed and removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.policies import Stored
from ovirtlab.engine.rest.documents import Collection, Entity, Value
from ovirtlab.engine.rest.kept import keep, reference
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import SYSTEM, State

_WORDS: dict[str, Callable[[Stored], str]] = {
    "id": lambda item: item.id,
    "name": lambda item: str(item.kept.get("name", "")),
}
Place = Callable[[Call], tuple[str, str]]


def _system(call: Call) -> tuple[str, str]:
    return ("system", SYSTEM)


@dataclass(frozen=True, kw_only=True)
class StoredKind:
    """One kind of them: `keeps` are the properties a request may set, `needs` those it must have.

    `permit` is what a user needs on the object of the path to change anything; `place` finds that object, or raises.
    """

    tag: str
    member: str
    keeps: tuple[str, ...]
    permit: str
    needs: tuple[str, ...] = ("name",)
    place: Place = _system
    links: tuple[str, ...] = ()
    single: bool = False  # whether there is one at most
    searchable: bool = False  # whether `search` is looked at
    unique: bool = True  # whether no two at one place have the same name

    def show(self, state: State, item: Stored) -> Entity:
        fields = {name: _linked(state, value) for name, value in item.kept.items()}
        return Entity(self.member, fields, id=item.id, href=address(item.base, item.id), links=self.links)

    def listing(self, call: Call) -> Collection:
        """Those that lie at the path of the call."""
        self.place(call)
        items = [item for item in call.context.state.stored[self.member].values() if item.base == call.path]
        return self._kind.listing(call, items)

    @property
    def _kind(self) -> Kind[Stored]:
        return Kind(
            tag=self.tag,
            member=self.member,
            show=lambda call, item: self.show(call.context.state, item),
            words=_WORDS if self.searchable else {},
        )

    def add(self, call: Call, *, base: str) -> Created:
        """Make one whose address is below `base`."""
        call.require(self.permit, self.place(call))
        for name in self.needs:
            if name not in call.body:
                raise incomplete(_words(self.member).replace(" ", ""), ", ".join(self.needs), "add")
        self._check_free(call, base)
        self._check_name(call, "add", base=base)
        state = call.context.state
        item = Stored(id=state.new_id(), base=base)
        keep(state, item.kept, call.body, self.keeps)
        state.stored[self.member][item.id] = item
        return Created(lambda: self.show(state, item))

    def update(self, call: Call) -> Entity:
        item = self.find(call)
        call.require(self.permit, self.place(call))
        self._check_name(call, "edit", base=item.base, besides=item.id)
        keep(call.context.state, item.kept, call.body, self.keeps)
        return self.show(call.context.state, item)

    def remove(self, call: Call) -> Done:
        item = self.find(call)
        call.require(self.permit, self.place(call))
        del call.context.state.stored[self.member][item.id]
        return Done()

    def find(self, call: Call) -> Stored:
        self.place(call)
        item = call.context.state.stored[self.member].get(call.id("item"))
        if item is None or call.path != f"{item.base}/{item.id}":
            raise NotFound(call.path)
        return item

    def _check_free(self, call: Call, base: str) -> None:
        if self.single and any(item.base == base for item in call.context.state.stored[self.member].values()):
            raise conflict(f"Cannot add {_words(self.member)}. There is one already.")

    def _check_name(self, call: Call, verb: str, *, base: str, besides: str = "") -> None:
        name = call.body.text("name")
        if name is None or not self.unique:
            return
        siblings = (item for item in call.context.state.stored[self.member].values() if item.base == base)
        if any(item.kept.get("name") == name and item.id != besides for item in siblings):
            raise conflict(f"Cannot {verb} {_words(self.member)}. The name {name} is already in use.")


def serve(routes: Routes, kind: StoredKind, pattern: str) -> None:
    """The five calls of a collection that lies at `pattern`, and nowhere else."""

    @routes.get(pattern)
    async def list_stored(call: Call) -> Collection:
        return kind.listing(call)

    @routes.post(pattern)
    async def add_stored(call: Call) -> Created:
        return kind.add(call, base=call.path)

    serve_items(routes, kind, pattern)


def serve_items(routes: Routes, kind: StoredKind, pattern: str) -> None:
    """The calls of one object of the collection at `pattern`."""

    @routes.get(f"{pattern}/{{item}}")
    async def get_stored(call: Call) -> Entity:
        return kind.show(call.context.state, kind.find(call))

    @routes.put(f"{pattern}/{{item}}")
    async def update_stored(call: Call) -> Entity:
        return kind.update(call)

    @routes.delete(f"{pattern}/{{item}}")
    async def remove_stored(call: Call) -> Done:
        return kind.remove(call)


def _linked(state: State, value: Value) -> Value:
    """A reference to another stored object as a link to it; nothing when that is gone."""
    if not isinstance(value, Entity) or value.tag not in state.stored or value.id is None:
        return value
    return reference(state, value.tag, value.id)


def _words(member: str) -> str:
    return member.replace("_", " ").title()
