"""The grouped mapping, compared with a dict of dicts."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from relay.server.worker.grouped import Grouped


class Value(NamedTuple):
    key: int
    content: int


def key_of(value: Value) -> int:
    return value.key


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2), st.integers(0, 9))))
def test_as_a_dict_of_dicts(steps: list[tuple[bool, int, int, int]]) -> None:
    grouped: Grouped[int, int, Value] = Grouped(key_of)
    model: dict[int, dict[int, Value]] = {}
    for adds, group, key, content in steps:
        if adds:
            value = Value(key, content)
            grouped.add(group, value)
            model.setdefault(group, {})[key] = value
        elif key in model.get(group, {}):
            del model[group][key]
            if last := not model[group]:
                del model[group]
            assert grouped.remove(group, key) is last
        assert list(grouped) == list(model)
        assert len(grouped) == len(model)
        for group in range(3):
            assert (group in grouped) is (group in model)
            assert list(grouped.values(group)) == list(model.get(group, {}).values())
            for key in range(3):
                assert grouped.get(group, key) == model.get(group, {}).get(key)
