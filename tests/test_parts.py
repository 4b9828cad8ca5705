"""Cutting what is many or large into parts."""

import pytest

from deferred_signals.parts import in_parts


@pytest.mark.parametrize(
    ("items", "found"),
    [
        ("", []),
        ("a", ["a"]),
        ("aaaa", ["aaa", "a"]),
        ("bbbb", ["bb", "bb"]),
        ("aab", ["aab"]),
        ("aabb", ["aab", "b"]),
        ("z", ["z"]),
        ("aza", ["a", "z", "a"]),
        ("zz", ["z", "z"]),
    ],
)
def test_no_part_has_too_many_or_is_too_large_but_of_one_alone(items: str, found: list[str]):
    size = {"a": 1, "b": 2, "z": 99}
    assert list(in_parts(items, map(size.__getitem__, items), 3, 4)) == found
