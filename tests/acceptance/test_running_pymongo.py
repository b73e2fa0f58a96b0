"""The other MongoDB driver: a part of the tests again, with `driver = "pymongo"` (DESIGN 2.5)."""

from tests.acceptance.test_undo_compensate import (
    parking_is_expected,
    test_f25_it_replaces_the_undo_of_its_operation,
)
from tests.acceptance.test_undo_exact import (
    stack,
    test_f27_documents_and_rows_end_exactly_as_they_were,
)
from tests.acceptance.test_undo_strangers import (
    test_f28_numbers_keep_their_types_beside_a_stranger,
    test_f28_what_is_foreign_parks_and_what_is_not_is_kept,
    test_f29_force,
)
from tests.acceptance.test_values_alien import test_f33_alien_documents
from tests.acceptance.test_values_round_trip import (
    test_f32_round_trips_are_exact_in_the_store_and_in_events,
)

__all__ = [
    "parking_is_expected",
    "stack",
    "test_f25_it_replaces_the_undo_of_its_operation",
    "test_f27_documents_and_rows_end_exactly_as_they_were",
    "test_f28_numbers_keep_their_types_beside_a_stranger",
    "test_f28_what_is_foreign_parks_and_what_is_not_is_kept",
    "test_f29_force",
    "test_f32_round_trips_are_exact_in_the_store_and_in_events",
    "test_f33_alien_documents",
]

WORLD = {"stores": {"catalog": {"driver": "pymongo"}}}
