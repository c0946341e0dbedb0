"""Sessions: the same constructor call made again."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tinygen.component import Component
from tinygen.errors import ConfigError


class Context(Component):
    def __init__(self, initial: list[str] | None = None) -> None:
        self.messages = list(initial or [])


class Store(Component):
    renewable = False


class Member(Component):
    def __init__(self, name: str, *, context: Any = None, tools: Any = (), choose: Any = None) -> None:
        self.name = name
        self.context = context
        self.tools = tools
        self.choose = choose
        self.turns = 0

    def ready(self) -> bool:
        return self.turns > 0


class Group(Component):
    def __init__(self, members: Any, first: Any = None) -> None:
        self.members = members
        self.first = first


def test_a_session_starts_as_the_constructor_left_it() -> None:
    member = Member("ada")
    member.turns = 3
    member.added_later = True  # type: ignore[attr-defined]

    twin = member.session()

    assert (twin.name, twin.turns) == ("ada", 0)
    assert not hasattr(twin, "added_later")
    assert member.turns == 3


def test_arguments_that_are_components_are_renewed_too() -> None:
    member = Member("ada", context=Context(["hello"]))
    member.context.messages.append("used")

    twin = member.session()

    assert twin.context is not member.context
    assert twin.context.messages == ["hello"]


@pytest.mark.parametrize("wrap", [list, tuple, set, frozenset, lambda items: dict(enumerate(items))])
def test_components_inside_containers_are_renewed_in_the_same_kind_of_container(wrap: Any) -> None:
    original = wrap([Member("ada"), Member("bob")])

    twin = Group(original).session()

    assert type(twin.members) is type(original)
    members = twin.members.values() if isinstance(original, dict) else twin.members
    known = original.values() if isinstance(original, dict) else original
    assert {member.name for member in members} == {"ada", "bob"}
    assert not any(member in list(known) for member in members)


def test_an_object_used_twice_stays_one_object() -> None:
    context = Context()
    ada = Member("ada", context=context)
    group = Group([ada, Member("bob", context=context)], first=ada)

    twin = group.session()

    assert twin.first is twin.members[0]
    assert twin.members[0].context is twin.members[1].context
    assert twin.first is not ada


def test_a_bound_method_follows_its_object_into_the_session() -> None:
    ada = Member("ada")
    group = Group([ada, Member("bob", choose=ada.ready)])

    twin = group.session()

    twin.members[0].turns = 1
    assert twin.members[1].choose() is True
    assert ada.ready() is False


def test_everything_else_is_shared_with_the_session() -> None:
    client, store = object(), Store()
    tools = [len, client]

    twin = Member("ada", context=store, tools=tools, choose=client).session()

    assert twin.context is store
    assert twin.choose is client
    assert twin.tools == tools


def test_sessions_of_a_session_are_independent_as_well() -> None:
    first = Member("ada", context=Context()).session()
    first.context.messages.append("used")

    second = first.session()

    assert second.context.messages == []
    assert second.context is not first.context


def test_later_changes_of_a_list_argument_do_not_reach_sessions() -> None:
    members, inner = [Member("ada")], ["a"]
    group = Group(members, first={"names": inner})

    members.append(Member("bob"))
    inner.append("b")

    assert [member.name for member in group.session().members] == ["ada"]
    assert group.session().first == {"names": ["a"]}
    assert len(group.members) == 2  # the constructor got the list itself


def test_members_given_as_a_view_of_a_dict_are_renewed() -> None:
    members = {"a": Member("ada")}

    twin = Group(members.values()).session()

    assert [member.name for member in twin.members] == ["ada"]
    assert twin.members[0] is not members["a"]


@pytest.mark.parametrize("spent", [iter([1]), (x for x in [1]), map(str, [1]), zip([1], [2], strict=True)])
def test_what_can_be_read_only_once_is_refused(spent: Any) -> None:
    with pytest.raises(ConfigError, match=r"argument 1 of Group is a \w+, which can be read only once; pass a list"):
        Group(spent)
    with pytest.raises(ConfigError, match="argument 'tools' of Member"):
        Member("ada", tools=[spent])


def test_an_open_file_is_accepted_as_an_argument() -> None:
    with open(__file__, encoding="utf-8") as file:
        assert Group([], first=file).session().first is file


def test_attributes_of_a_subclass_need_no_help() -> None:
    class Counter(Member):
        def __init__(self) -> None:
            super().__init__("counter")
            self.seen: list[int] = []

    counter = Counter()
    counter.seen.append(1)

    assert counter.session().seen == []


def test_a_class_that_hides_its_construction_says_so_at_session() -> None:
    class Hidden(Component):
        def __new__(cls, name: str) -> Hidden:
            return object.__new__(cls)

        def __init__(self, name: str) -> None:
            self.name = name

    hidden = Hidden("x")

    with pytest.raises(ConfigError, match=r"Hidden cannot be made again: its __new__ must call super\(\).__new__"):
        hidden.session()


def test_a_class_that_is_not_renewable_has_no_sessions() -> None:
    with pytest.raises(ConfigError, match="Store is shared by all sessions"):
        Store().session()


def test_a_class_without_constructor_takes_no_arguments() -> None:
    with pytest.raises(TypeError):
        Store(1)


def test_constructors_of_mixins_are_reached_past_the_base() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    class Both(Store, Named):
        pass

    assert Both("ada").name == "ada"


def test_a_copied_object_remembers_the_call_of_its_original() -> None:
    assert copy.copy(Member("ada")).session().name == "ada"


def test_what_is_renewed_can_be_chosen_by_the_class() -> None:
    class Kept(Context):
        def _renew(self, memo: Any) -> Kept:
            twin = super()._renew(memo)
            twin.messages = self.messages.copy()
            return twin

    kept = Kept()
    kept.messages.append("carried over")

    twin = Member("ada", context=kept).session()

    assert twin.context.messages == ["carried over"]
    assert twin.context.messages is not kept.messages
